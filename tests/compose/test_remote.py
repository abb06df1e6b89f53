"""Deployment to a server over ssh, by the digest of an image in a registry."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compose.stack import (
    PRODUCTION,
    Finished,
    Stack,
    free_subnet,
    images_of,
    remove,
    stack,
    wait_until,
)
from tests.compose.subject import PATH
from tests.compose.test_operations import failures, version
from tests.load import load
from tests.process import free_port

AROUND = ("docker", "compose", "-f", "tests/compose/remote/compose.yml")


@dataclass
class Remote:
    """A checkout from which is deployed, and the folder on the server as a stack of its own."""

    checkout: Stack
    server: Stack

    def make(self, target: str, **variables: str) -> Finished:
        return self.checkout.run(*self.command(target, **variables))

    def command(self, target: str, **variables: str) -> list[str]:
        variables = {"HOST": "server", "FOLDER": str(self.server.folder)} | variables
        return ["make", "--silent", target, *(f"{name}={each}" for name, each in variables.items())]

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.checkout.variables['REGISTRY_PORT']}/me/service"

    def around(self, *arguments: str) -> str:
        """The registry and the server itself."""
        return self.checkout.done(*AROUND, *arguments)

    def release(self) -> str:
        """What runs on the server, as the registry knows it."""
        [container] = self.server.containers("api")
        image = self.server.inspect(container)["Image"]
        [digest] = self.server.inspect(image)["RepoDigests"]
        return str(digest)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("server")
    with stack(tmp_path_factory.mktemp("checkout"), "test-remote", PRODUCTION) as checkout:
        project = f"{checkout.project}-server"
        variables = checkout.variables | {
            "COMPOSE_PROJECT_NAME": project,
            "IMAGE": project,
            "WEB_SUBNET": free_subnet(),
            "WEB_CONCURRENCY": "1",
        }
        checkout.variables |= {
            "REGISTRY_PORT": str(free_port()),
            "SSH_PORT": str(free_port()),
            "SERVER": str(folder),
        }
        use_ssh(checkout, folder)
        made = Remote(checkout, Stack(folder / "service", PRODUCTION, variables))
        made.around("up", "--detach", "--build")
        ssh = ("ssh", "server", "true")
        wait_until(lambda: checkout.run(*ssh).returncode == 0, "sshd")
        try:
            yield made
        finally:
            remove(project)
            made.around("exec", "-T", "server", "rm", "-rf", str(folder / "service"))


def use_ssh(checkout: Stack, folder: Path) -> None:
    """A program `ssh` that knows the server by a key, for this test only."""
    key = folder / "key"
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(keygen, check=True)
    (folder / "key.pub").chmod(0o600)
    (folder / "other").write_text(key.read_text())
    options = {
        "HostName": "127.0.0.1",
        "Port": checkout.variables["SSH_PORT"],
        "User": "root",
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "LogLevel": "ERROR",
    }
    away = options | {"Port": str(free_port())}
    stranger = options | {"IdentityFile": "/dev/null"}
    text = ""
    for host, each in {"server": options, "away": away, "stranger": stranger}.items():
        text += f"Host {host}\n" + "".join(f"    {name} {each[name]}\n" for name in each)
    (folder / "config").write_text(text)
    programs = folder / "bin"
    programs.mkdir()
    program = shutil.which("ssh")
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {program} -F {folder}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    checkout.variables["PATH"] = f"{programs}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def deployed(remote: Remote) -> Remote:
    """The first deployment, in two steps: the folder, and what is in it once `.env` is there."""
    early = remote.make("deploy", REGISTRY=remote.registry)
    assert early.returncode != 0
    assert ".env is missing, which says where HTTPS ends" in early.stderr, early.stderr
    # Others may have taken the first ones meanwhile.
    remote.server.variables |= {f"{name}_PORT": str(free_port()) for name in ("HTTP", "HTTPS")}
    settings = {name: text for name, text in remote.server.variables.items() if name != "PATH"}
    env = "".join(f"{name}={text}\n" for name, text in settings.items())
    written = ("ssh", "server", f"cat >{remote.server.folder}/.env <<'END'\n{env}END")
    remote.checkout.done(*written)
    first = remote.make("deploy", REGISTRY=remote.registry)
    assert first.returncode == 0, first.stdout + first.stderr
    assert remote.release().startswith(f"{remote.registry}@sha256:")
    assert (remote.server.folder / ".env").read_text() == env
    return remote


async def test_deploy_and_rollback_on_a_server_fail_no_request(deployed: Remote):
    before, release = version(deployed.server), deployed.release()
    secrets = {file.name: file.read_text() for file in secrets_of(deployed)}
    change = """USER root
RUN sed -i 's/^VERSION = .*/VERSION = "9.8.7"/' app/about.py
USER 10001:10001"""
    built = await asyncio.to_thread(pushed, deployed, change)
    async with load(deployed.server.url, PATH, 4) as seen:
        await seen.until(20)
        new = await asyncio.to_thread(deployed.make, "deploy", RELEASE=built)
        after, newer = version(deployed.server), deployed.release()
        back = await asyncio.to_thread(deployed.make, "rollback")
        await seen.until(20)

    assert new.returncode == back.returncode == 0, new.stdout + new.stderr + back.stdout
    assert newer == built
    assert (after, version(deployed.server)) == ("9.8.7", before)
    assert deployed.release() == release
    assert {file.name: file.read_text() for file in secrets_of(deployed)} == secrets
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, failures(deployed.server, seen)) == (0, [])


def pushed(remote: Remote, change: str) -> str:
    """Another version in the registry, as a release of CI would make it."""
    folder = remote.checkout.folder / "change"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM {remote.release()}\n{change}\n")
    label = f"--label=com.docker.compose.project={remote.server.project}"
    tag = f"{remote.registry}:change"
    remote.checkout.done("docker", "build", "--quiet", label, "--tag", tag, "change")
    [digest] = re.findall(r"digest: (sha256:\w+)", remote.checkout.done("docker", "push", tag))
    return f"{remote.registry}@{digest}"


def pulled(remote: Remote) -> list[str]:
    """The releases of `pushed` that the server still has, not the one of the first deployment."""
    template = "{{range .RepoDigests}}{{println .}}{{end}}"
    images = images_of(remote.server.project)
    digests = remote.server.done("docker", "image", "inspect", "--format", template, *images)
    return [digest for digest in digests.split() if digest.startswith(remote.registry)]


def secrets_of(remote: Remote) -> list[Path]:
    return [*(remote.server.folder / "secrets").iterdir()]


def unchanged(deployed: Remote, before: list[str], release: str) -> None:
    assert deployed.server.containers("api") == before
    assert deployed.release() == release
    with deployed.server.client() as client:
        assert client.get(PATH).status_code == 200


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HOST": "away"}, "See that this works: ssh away"),
        ({"HOST": "stranger"}, "See that this works: ssh stranger"),
        ({"HOST": "-oProxyCommand=true"}, "name a server, such as HOST=user@server"),
        ({"REGISTRY": ""}, "Add REGISTRY=ghcr.io/me/image"),
        ({"REGISTRY": "127.0.0.1:9/me/service"}, "Does this work: docker login 127.0.0.1:9"),
        ({"RELEASE": "ghcr.io/me/service:latest"}, "name an image by its digest"),
        ({"RELEASE": f"127.0.0.1:9/me/service@sha256:{'0' * 64}"}, "run: docker login 127.0.0.1:9"),
    ],
)
def test_step_that_fails_names_the_next_and_the_old_version_serves(
    deployed: Remote, variables: dict[str, str], said: str
):
    before, release = deployed.server.containers("api"), deployed.release()
    finished = deployed.make("deploy", **{"REGISTRY": deployed.registry} | variables)

    assert finished.returncode != 0
    assert said in finished.stdout + finished.stderr
    unchanged(deployed, before, release)


def test_version_that_does_not_start_is_taken_back(deployed: Remote):
    before, release = deployed.server.containers("api"), deployed.release()
    wrong = pushed(deployed, 'CMD ["python", "-c", "raise RuntimeError(\\"broken on purpose\\")"]')
    finished = deployed.make("deploy", RELEASE=wrong)

    assert finished.returncode != 0
    assert "broken on purpose" in finished.stdout
    assert "it does not become healthy; the old one goes on" in finished.stdout
    unchanged(deployed, before, release)


def test_deployment_of_which_the_connection_ends_is_taken_back(deployed: Remote):
    before, release = deployed.server.containers("api"), deployed.release()
    image = deployed.server.done("docker", "inspect", "-f", "{{.Id}}", release)
    latest = f"{deployed.server.variables['IMAGE']}:latest"
    other = pushed(deployed, "LABEL other=yes")
    started = deployed.checkout.start(*deployed.command("deploy", RELEASE=other))
    while len(deployed.server.containers("api")) < 2:
        assert started.process.poll() is None, started.output.read_text()
        time.sleep(0.1)
    started.signal(signal.SIGKILL)
    started.ended()
    wait_until(lambda: deployed.server.containers("api") == before, "the end of the new one")
    lock = "flock --nonblock 9 9>>var/operation.lock"
    wait_until(lambda: deployed.server.run("sh", "-c", lock).returncode == 0, "the lock")

    assert deployed.server.done("docker", "inspect", "-f", "{{.Id}}", latest) == image
    unchanged(deployed, before, release)
    again = deployed.make("deploy", RELEASE=other)
    assert again.returncode == 0, again.stdout
    assert deployed.release() == other
    assert pulled(deployed) == [other]


def test_operation_that_runs_keeps_the_files_as_they_are(deployed: Remote):
    script = deployed.server.folder / "docker" / "deploy.sh"
    before = script.stat().st_ino
    name = "echo 'backup (process 1)' >var/operation.lock"
    hold = f"exec 9>>var/operation.lock; flock 9; {name}; sleep 600"
    holder = deployed.server.start("sh", "-c", hold)
    written = deployed.server.folder / "var" / "operation.lock"
    wait_until(lambda: "backup" in written.read_text(), "the lock")
    finished = deployed.make("deploy", RELEASE=deployed.release())
    holder.signal(signal.SIGKILL)
    holder.ended()

    assert finished.returncode != 0
    assert "backup (process 1) is running; try again" in finished.stderr
    assert script.stat().st_ino == before
