"""What `kubectl apply -k` would send, and what is wrong with it."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from app.settings import Settings
from chassis.settings.names import fields_of
from tests.process import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
# Of requirements-dev.lock; one on the PATH may be of any age.
KUBECTL = Path(sys.executable).with_name("kubectl")

Object = dict[str, Any]

UNITS = {"m": 0.001, "": 1, "Mi": 2**20, "Gi": 2**30}
PROBES = {"startupProbe", "readinessProbe", "livenessProbe"}
SECRETS = {
    name
    for name, field in fields_of(Settings)
    if "SecretStr" in str(field.annotation) and not name.endswith("_URL")
}


@cache
def render(folder: Path) -> str:
    return subprocess.run(
        [KUBECTL, "kustomize", folder], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def objects(folder: Path) -> list[Object]:
    """New ones each time, which a test may change."""
    return list(yaml.safe_load_all(render(folder)))


def the(kind: str, name: str, among: Sequence[Object]) -> Object:
    [found] = [one for one in among if one["kind"] == kind and name_of(one) == name]
    return found


def name_of(one: Object) -> str:
    name: str = one["metadata"]["name"]
    # Those that kustomize makes end with a digest.
    return name.rpartition("-")[0] if one["kind"] == "ConfigMap" else name


def workloads(among: Sequence[Object]) -> list[Object]:
    return [one for one in among if one["kind"] in ("Deployment", "Job")]


def pod_of(workload: Object) -> Object:
    pod: Object = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Object) -> Object:
    container: Object
    [container] = pod_of(workload)["containers"]
    return container


def containers_of(workload: Object) -> list[Object]:
    return [*pod_of(workload).get("initContainers", []), container_of(workload)]


def settings_of(workload: Object, among: Sequence[Object]) -> dict[str, str]:
    """The environment of its container, but for what is empty."""
    container = container_of(workload)
    maps = {one["metadata"]["name"]: one["data"] for one in among if one["kind"] == "ConfigMap"}
    values: dict[str, str] = {}
    for source in container["envFrom"]:
        values |= maps[source["configMapRef"]["name"]]
    values |= {variable["name"]: variable["value"] for variable in container.get("env", [])}
    return {name: value for name, value in values.items() if value}


def secrets_of(workload: Object) -> dict[str, str]:
    """The keys of the Secret by the names of files."""
    [volume] = [one for one in pod_of(workload)["volumes"] if "projected" in one]
    sources = [source["secret"] for source in volume["projected"]["sources"]]
    return {item["path"]: item["key"] for source in sources for item in source["items"]}


def amount(quantity: str) -> float:
    """CPUs, or bytes."""
    number, unit = re.findall(r"^([\d.]+)(\w*)$", quantity)[0]
    return float(number) * UNITS[unit]


def faults_of(among: Sequence[Object]) -> list[str]:
    """Against what every object has to keep to; the Pod Security Standard `restricted` included."""
    faults = [f"{name_of(one)}: a Secret" for one in among if one["kind"] == "Secret"]
    for workload in workloads(among):
        name = f"{workload['kind']} {name_of(workload)}"
        faults += [f"{name}: {fault}" for fault in _faults_of_pod(workload)]
        for container in containers_of(workload):
            faults += [f"{name}: {fault}" for fault in _faults_of_container(container)]
        if workload["kind"] == "Deployment":
            faults += [f"{name}: no {probe}" for probe in PROBES - container_of(workload).keys()]
    for config in (one["data"] for one in among if one["kind"] == "ConfigMap"):
        faults += [f"{key} is a secret" for key in config.keys() & SECRETS]
        faults += [f"{key} has a password" for key, value in config.items() if _password(value)]
    return [*faults, *_faults_of_names(among)]


def _password(value: str) -> str | None:
    return urlsplit(value).password if "://" in value else None


def _faults_of_pod(workload: Object) -> Iterator[str]:
    pod = pod_of(workload)
    security = pod.get("securityContext", {})
    if not (security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0):
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "has a token of the cluster"
    if pod.get("enableServiceLinks") is not False:
        yield "has variables of every Service"
    if workload["kind"] == "Deployment" and "terminationGracePeriodSeconds" not in pod:
        yield "no time to stop"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if key in pod:
            yield key
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for name, volume in volumes.items():
        if not volume.keys() & {"projected", "emptyDir"}:
            yield f"volume {name} is of the node, or stays"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {name} has no limit"
    mounted = {mount["name"] for one in containers_of(workload) for mount in one["volumeMounts"]}
    if mounted != volumes.keys():
        yield f"mounts {sorted(mounted)}, and has {sorted(volumes)}"


def _faults_of_container(container: Object) -> Iterator[str]:
    name = container["name"]
    image, _, version = container["image"].rpartition(":")
    if not image or "/" in version or version == "latest":
        yield f"{name}: the image has no version"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for resource in {"cpu", "memory"} - resources.get(kind, {}).keys():
            yield f"{name}: no {kind} of {resource}"
    if resources.get("requests", {}).get("memory") != resources.get("limits", {}).get("memory"):
        yield f"{name}: is granted memory that the node may lack"
    security: Mapping[str, Any] = container.get("securityContext", {})
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: can write to its file system"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield f"{name}: can gain privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name}: has capabilities"


def _faults_of_names(among: Sequence[Object]) -> Iterator[str]:
    """What refers to something that is not there."""
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in workloads(among)]
    pods = {label["app.kubernetes.io/name"] for label in labels}
    for one in among:
        text = yaml.safe_dump(one.get("spec", {}))
        selected = re.findall(r"app\.kubernetes\.io/name: (\S+)", text)
        selected += [
            value
            for expression in one.get("spec", {}).get("podSelector", {}).get("matchExpressions", [])
            for value in expression["values"]
        ]
        for label in {*selected} - pods:
            yield f"{one['kind']} {name_of(one)}: there is no pod {label}"
    denied = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(one["kind"] == "NetworkPolicy" and one["spec"] == denied for one in among):
        yield "what no NetworkPolicy allows is not denied"
