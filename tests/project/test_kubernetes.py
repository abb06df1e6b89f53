"""deploy/kubernetes: what the schemas and policies say, and that it agrees with the service."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import typer
import yaml
from kubernetes_validate.utils import all_versions

from app import cli
from app.main import create_app
from app.settings import ServiceSettings, Settings, settings_warnings
from chassis.database.settings import DatabaseSettings
from chassis.development.prometheus_rule import RESOURCES, render
from chassis.jobs.settings import JobsSettings
from chassis.limits.settings import RequestSettings
from chassis.redis.settings import RedisSettings
from chassis.resources import declare_metrics
from chassis.routes.health import PRIMARY_TIMEOUT
from chassis.server.settings import WebSettings
from tests.kubernetes import (
    FOLDER,
    Object,
    amount,
    container_of,
    containers_of,
    faults_of,
    name_of,
    objects,
    pod_of,
    secrets_of,
    settings_of,
    the,
    workloads,
)
from tests.process import ROOT

BASE = FOLDER / "base"
OVERLAYS = sorted((FOLDER / "overlays").iterdir())
COMPONENTS = sorted((FOLDER / "components").iterdir())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
# The newest and the two before it.
VERSIONS = sorted({*all_versions()}, key=lambda version: [*map(int, version.split("."))])[-3:]
# Of operators, without schemas here: docs/kubernetes.md says how they were checked.
CUSTOM = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
PORTS = {"mariadb+asyncmy": 3306, "redis": 6379, "rediss": 6379, "s3": 443, "https": 443}
PORTS |= {"smtp": 25, "smtps": 465}

overlays = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
each_workload = pytest.mark.parametrize(
    ("name", "kind"), [("api", "Deployment"), ("worker", "Deployment"), ("migrate", "Job")]
)


def default_of(text: str) -> str:
    """Of Compose's ${NAME:-default}, or what is there without one."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))


def quantity_of(text: str) -> str:
    """As Kubernetes writes what Compose has as 64m or 1g."""
    return default_of(text).replace("m", "Mi").replace("g", "Gi")


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def paths_of_the_service() -> set[str]:
    nowhere = Settings(
        _env_file=None,
        database=DatabaseSettings(url="mariadb+asyncmy://nowhere/x"),
        redis=RedisSettings(url="redis://nowhere"),
    )
    return {str(getattr(route, "path", "")) for route in create_app(nowhere).routes}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay of all components."""
    folder = tmp_path_factory.mktemp("everything").resolve()
    listed = "".join(f"  - {os.path.relpath(one, folder)}\n" for one in COMPONENTS)
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources:\n  - {os.path.relpath(BASE, folder)}\ncomponents:\n{listed}"
    )
    return folder


@pytest.fixture(params=["everything", *(overlay.name for overlay in OVERLAYS)])
def rendered(request: pytest.FixtureRequest, everything: Path) -> list[Object]:
    name = request.param
    return objects(everything if name == "everything" else FOLDER / "overlays" / name)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_knows(rendered: list[Object], version: str):
    for one in rendered:
        if one["kind"] not in CUSTOM:
            assert version.startswith(kubernetes_validate.validate(one, version, strict=True))


def test_versions_are_those_that_the_page_names():
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    oldest, newest = (version.rpartition(".")[0] for version in (VERSIONS[0], VERSIONS[-1]))

    assert f"({oldest} to {newest})" in page


def test_no_policy_is_broken(rendered: list[Object]):
    assert faults_of(rendered) == []
    assert {name_of(one) for one in workloads(rendered)} == {"api", "migrate", "worker"}


def drop(*path: str) -> Callable[[list[Object]], None]:
    """Without this part of the Deployment `api`."""

    def change(among: list[Object]) -> None:
        part: Any = the("Deployment", "api", among)["spec"]["template"]["spec"]
        for key in path[:-1]:
            part = part[int(key)] if isinstance(part, list) else part[key]
        del part[path[-1]]

    return change


def put(value: Any, *path: str) -> Callable[[list[Object]], None]:
    def change(among: list[Object]) -> None:
        part: Any = the("Deployment", "api", among)["spec"]["template"]["spec"]
        for key in path[:-1]:
            part = part[int(key)] if isinstance(part, list) else part[key]
        part[path[-1]] = value

    return change


def set_setting(name: str, value: str) -> Callable[[list[Object]], None]:
    return lambda among: the("ConfigMap", "settings", among)["data"].update({name: value})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (drop("securityContext"), "may run as root"),
        (drop("securityContext", "seccompProfile"), "no seccomp"),
        (drop("automountServiceAccountToken"), "token"),
        (drop("enableServiceLinks"), "variables"),
        (drop("terminationGracePeriodSeconds"), "time to stop"),
        (drop("containers", "0", "resources", "limits", "cpu"), "no limits of cpu"),
        (drop("initContainers", "0", "resources"), "no requests of memory"),
        (drop("containers", "0", "livenessProbe"), "no livenessProbe"),
        (drop("containers", "0", "securityContext", "readOnlyRootFilesystem"), "can write"),
        (drop("containers", "0", "securityContext", "allowPrivilegeEscalation"), "gain"),
        (drop("containers", "0", "securityContext", "capabilities"), "capabilities"),
        (put("service:latest", "containers", "0", "image"), "no version"),
        (put("host:5000/service", "containers", "0", "image"), "no version"),
        (put([], "volumes"), "mounts"),
        (put(True, "hostNetwork"), "hostNetwork"),
        (set_setting("TOKENS_KEY", "x"), "TOKENS_KEY is a secret"),
        (set_setting("REDIS_URL", "redis://:x@host"), "REDIS_URL has a password"),
        (lambda among: among.append({"kind": "Secret", "metadata": {"name": "x"}}), "a Secret"),
        (lambda among: among.remove(the("NetworkPolicy", "default-deny", among)), "not denied"),
        (lambda among: among.remove(the("Deployment", "worker", among)), "no pod worker"),
    ],
)
def test_policies_find_what_they_are_for(change: Callable[[list[Object]], None], fault: str):
    among = objects(OVERLAYS[0])
    change(among)

    assert any(fault in found for found in faults_of(among))


@overlays
@pytest.mark.parametrize("name", ["api", "worker"])
def test_service_starts_with_these_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overlay: Path, name: str
):
    among = objects(overlay)
    workload = the("Deployment", name, among)
    for variable in [*os.environ]:
        if variable.partition("_")[0] in ("DATABASE", "REDIS", "JOBS", "TOKENS", "ENVIRONMENT"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    for variable, value in settings_of(workload, among).items():
        monkeypatch.setenv(variable, value.partition("?ssl_ca=")[0])  # no file of this machine
    files = lay_out_as_kubernetes_does(tmp_path / "secrets", [*secrets_of(workload)])

    settings = (ServiceSettings if name == "api" else Settings)(_secrets_dir=files)

    assert settings.environment == "production"
    assert settings.database.password is not None
    assert settings_warnings() == []


def lay_out_as_kubernetes_does(folder: Path, names: list[str]) -> Path:
    """By links to a folder that is replaced as a whole."""
    (folder / "..2026").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026")
    for name in names:
        (folder / "..2026" / name).write_text(f"of {name} {'x' * 32}")
        (folder / name).symlink_to(f"..data/{name}")
    return folder


@each_workload
def test_containers_are_those_of_compose(name: str, kind: str):
    service = COMPOSE["services"][name]
    workload = the(kind, name, objects(BASE))
    container, pod = container_of(workload), pod_of(workload)
    limits = service["deploy"]["resources"]["limits"]
    secrets = [
        {"source": one, "target": one} if isinstance(one, str) else one
        for one in service["secrets"]
    ]

    assert container.get("command") == service.get("command")
    assert amount(container["resources"]["limits"]["cpu"]) == float(default_of(limits["cpus"]))
    assert container["resources"]["limits"]["memory"] == quantity_of(limits["memory"])
    assert secrets_of(workload) == {one["target"]: one["source"] for one in secrets}
    [(_, size)] = re.findall(r"^(/tmp):.*size=(\w+)$", COMPOSE["x-app"]["tmpfs"][0])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["tmp"]["emptyDir"]["sizeLimit"] == quantity_of(size)
    if name == "api":
        assert volumes["shm"]["emptyDir"]["sizeLimit"] == quantity_of(service["shm_size"])
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    user = pod["securityContext"]
    users = set(re.findall(r"(?m)^USER (?!root)(.*)$", dockerfile))
    assert users == {f"{user['runAsUser']}:{user['runAsGroup']}"}
    assert user["fsGroup"] == user["runAsGroup"]  # reads the secrets


def test_settings_that_the_manifests_rely_on_are_those_of_compose():
    among = objects(BASE)
    compose = COMPOSE["x-app"]["environment"] | COMPOSE["services"]["worker"]["environment"]
    literals = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"][0]
    fixed = dict(line.split("=", 1) for line in literals["literals"])

    assert {name: default_of(compose[name]) for name in fixed} == fixed
    for name in ("api", "worker"):
        container = container_of(the("Deployment", name, among))
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        key = "METRICS_PORT" if name == "api" else "JOBS_METRICS_PORT"
        assert ports.pop("metrics") == fixed[key]
        assert ports == ({"http": fixed["PORT"]} if name == "api" else {})
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert any(fixed["FILES_UPLOADS"].startswith(f"{path}/") for path in mounts)
        assert any(fixed["JOBS_HEARTBEAT"].startswith(f"{path}/") for path in mounts)


def test_a_stop_has_the_time_that_it_takes():
    among = objects(BASE)
    api, worker = (pod_of(the("Deployment", name, among)) for name in ("api", "worker"))
    services = COMPOSE["services"]
    before = api["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]

    # By default, and nothing here sets another.
    graceful = WebSettings().graceful_timeout, JobsSettings().graceful_timeout
    settings = settings_of(the("Deployment", "api", among), among)
    assert not settings.keys() & {"WEB_GRACEFUL_TIMEOUT", "JOBS_GRACEFUL_TIMEOUT", "WEB_TIMEOUT"}
    time = api["terminationGracePeriodSeconds"] - before
    assert time == seconds(services["api"]["stop_grace_period"]) > graceful[0]
    assert worker["terminationGracePeriodSeconds"] == seconds(
        services["worker"]["stop_grace_period"]
    )
    assert worker["terminationGracePeriodSeconds"] > graceful[1]
    # One that stops is gone before the next one does: that is what WEB_REPLICAS counts.
    assert the("Deployment", "api", among)["spec"]["minReadySeconds"] > before


def test_probes_ask_what_the_service_has():
    among = objects(BASE)
    api = container_of(the("Deployment", "api", among))
    start, ready, live = (api[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness"))
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    check = (ROOT / "docker" / "healthcheck.py").read_text()
    paths = paths_of_the_service()

    assert {probe["httpGet"]["port"] for probe in (start, ready, live)} == {"http"}
    assert {probe["httpGet"]["path"] for probe in (start, ready, live)} <= paths
    # It gates a rollout; from then on a database that is away takes no pod out.
    assert f'"{start["httpGet"]["path"]}"' in check
    assert ready["httpGet"] == live["httpGet"] == {"path": "/health", "port": "http"}
    [options] = re.findall(r"HEALTHCHECK (.*) \\\n", dockerfile)
    limits = dict(re.findall(r"--([\w-]+)=(\d+)s", options))
    assert start["periodSeconds"] * start["failureThreshold"] == int(limits["start-period"])
    assert start["timeoutSeconds"] == int(limits["timeout"]) > PRIMARY_TIMEOUT
    # Gunicorn is the first to replace a worker that hangs, and what is no longer ready may recover.
    assert live["periodSeconds"] * live["failureThreshold"] > WebSettings().timeout
    assert ready["periodSeconds"] * ready["failureThreshold"] < WebSettings().timeout


def test_heartbeat_is_looked_at_as_compose_does():
    worker = container_of(the("Deployment", "worker", objects(BASE)))
    [shell, command] = COMPOSE["services"]["worker"]["healthcheck"]["test"]

    assert shell == "CMD-SHELL"
    for kind in ("startup", "readiness", "liveness"):
        assert worker[f"{kind}Probe"]["exec"]["command"][-1] == command.replace("$$", "$")


@overlays
def test_connections_are_counted_for_as_many_pods_as_there_may_be(overlay: Path):
    among = objects(overlay)
    api, worker = (the("Deployment", name, among) for name in ("api", "worker"))
    scaler = the("HorizontalPodAutoscaler", "api", among)["spec"]
    settings = settings_of(api, among)
    surge = [one["spec"]["strategy"]["rollingUpdate"]["maxSurge"] for one in (api, worker)]

    # One more may be about to stop.
    assert int(settings["WEB_REPLICAS"]) == scaler["maxReplicas"] + surge[0] + 1
    assert int(settings["JOBS_REPLICAS"]) == worker["spec"]["replicas"] + surge[1] + 1
    assert "replicas" not in api["spec"]  # an `apply` would undo what the autoscaler did
    assert (
        scaler["minReplicas"] > the("PodDisruptionBudget", "api", among)["spec"]["maxUnavailable"]
    )


def test_requests_in_work_scale_before_a_worker_refuses_them(everything: Path):
    among = objects(everything)
    metrics = the("HorizontalPodAutoscaler", "api", among)["spec"]["metrics"]
    [pods] = [one["pods"] for one in metrics if one["type"] == "Pods"]

    families = {family.name for family in declare_metrics().registry.collect()}
    assert pods["metric"]["name"] in families
    assert 2 * int(pods["target"]["averageValue"]) == RequestSettings().max_working


@overlays
def test_there_are_as_many_workers_as_cpus_and_memory_for_each(overlay: Path):
    among = objects(overlay)
    limits = container_of(the("Deployment", "api", among))["resources"]["limits"]
    service = COMPOSE["services"]["api"]["deploy"]["resources"]["limits"]
    workers = int(default_of(COMPOSE["x-app"]["environment"]["WEB_CONCURRENCY"]))

    assert "WEB_CONCURRENCY" not in settings_of(the("Deployment", "api", among), among)
    assert amount(limits["cpu"]) == int(limits["cpu"])
    each = amount(quantity_of(service["memory"])) / workers
    assert amount(limits["memory"]) >= amount(limits["cpu"]) * each


@overlays
def test_every_pod_waits_for_the_schema_but_the_one_that_changes_it(overlay: Path):
    among = objects(overlay)
    waiting = [one for one in workloads(among) if "initContainers" in pod_of(one)]

    assert {name_of(one) for one in waiting} == {"api", "worker"}
    assert "await-schema" in typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for one in waiting:
        first, last = containers_of(one)
        assert first["command"] == ["python", "-m", "app", "await-schema"]
        assert (first["image"], first["envFrom"]) == (last["image"], last["envFrom"])
    assert the("Job", "migrate", among)["spec"]["backoffLimit"] == 0


@overlays
@each_workload
def test_pods_reach_the_servers_of_their_settings(overlay: Path, name: str, kind: str):
    among = objects(overlay)
    policies = [one["spec"] for one in among if one["kind"] == "NetworkPolicy"]
    open_ports = {
        port["port"]
        for policy in policies
        for rule in policy.get("egress", [])
        for port in rule["ports"]
        if name in yaml.safe_dump(policy["podSelector"])
    }
    settings = settings_of(the(kind, name, among), among)
    used = (
        {"DATABASE_URL"}
        if kind == "Job"
        else {"DATABASE_URL", "REDIS_URL", "JOBS_URL", "FILES_URL"}
    )
    used |= {"MAIL_URL"} if name == "worker" else set()
    urls = [urlsplit(settings[setting]) for setting in used & settings.keys()]

    assert {url.port or PORTS[url.scheme] for url in urls} <= open_ports
    assert kind != "Job" or len(open_ports) == 1  # the database's


def test_clients_reach_every_route_that_is_for_them(everything: Path):
    among = objects(everything)
    [host] = the("HTTPRoute", "api", among)["spec"]["hostnames"]
    rules = the("HTTPRoute", "api", among)["spec"]["rules"]
    matches = [match["path"] for rule in rules for match in rule["matches"]]
    gateway = {(match["value"], match["type"] == "Exact") for match in matches}
    [rule] = the("Ingress", "api", among)["spec"]["rules"]
    ingress = {(one["path"], one["pathType"] == "Exact") for one in rule["http"]["paths"]}

    assert gateway == ingress

    def is_served(path: str) -> bool:
        return any(
            path == value or (not exact and path.startswith(f"{value}/"))
            for value, exact in gateway
        )

    # nginx of Compose refuses the first two; the last is for files in a folder.
    private = {"/metrics", "/health/ready", "/files/{key:path}"}
    assert {path for path in paths_of_the_service() if not is_served(path)} == private
    assert rule["host"] == host
    limits = {seconds(one["timeouts"]["request"]) for one in rules}
    assert min(limits) > RequestSettings().timeout


def test_prometheus_scrapes_what_the_rules_are_about(everything: Path):
    among = objects(everything)
    port = container_of(the("Deployment", "api", among))["ports"][1]
    endpoints = {
        "api": the("ServiceMonitor", "api", among)["spec"]["endpoints"],
        "jobs": the("PodMonitor", "worker", among)["spec"]["podMetricsEndpoints"],
    }
    service = the("Service", "api", among)["spec"]["ports"]
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())

    assert endpoints.keys() == {one["job_name"] for one in config["scrape_configs"]}
    for job, [endpoint] in endpoints.items():
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job}]
        assert endpoint["port"] == port["name"]
        assert endpoint["interval"] == config["global"]["scrape_interval"]
    assert port["name"] in {one["name"] for one in service}
    [ingress] = the("NetworkPolicy", "prometheus", among)["spec"]["ingress"]
    assert [one["port"] for one in ingress["ports"]] == [port["containerPort"]]


def test_rules_of_the_operator_are_those_of_prometheus():
    assert RESOURCES.read_text("utf-8") == render(), "Run: make kubernetes"
    for one in yaml.safe_load_all(render()):
        source = ROOT / "docker" / "prometheus" / f"{name_of(one)}.yml"
        assert one["spec"] == yaml.safe_load(source.read_text("utf-8"))
        names = [group["name"] for group in one["spec"]["groups"]]
        assert len(names) == len({*names})  # the operator refuses others
