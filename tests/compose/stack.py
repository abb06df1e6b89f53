"""A stack as a user would bring it up, from a copy of this checkout: `make test-compose`."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import httpx2
import pytest

from tests.process import ROOT, free_port

TIMEOUT = 600  # s; of one command, the first build of an image included
PATIENCE = 60  # s; until something that was caused is seen

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
                f"{client} books",
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

    def client(self, **headers: str) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20)

    def editor(self) -> httpx2.Client:
        """Logged in anew; the first time the account is made, as the runbook says."""
        email, password = "editor@example.com", "a password for the tests"
        command = f"echo '{password}' | python -m app create-user {email} --role editor"
        made = self.inside("api", command)
        assert made.returncode == 0 or "already" in made.stderr, made.stderr
        form = {"grant_type": "password", "username": email, "password": password}
        with self.client() as client:
            answer = client.post("/v1/tokens", data=form)
        return self.client(Authorization=f"Bearer {answer.json()['access_token']}")

    def register(self, name: str) -> None:
        body = {"email": f"{name}@example.com", "name": name, "password": "a long password"}
        with self.client() as client:
            answer = client.post("/v1/users", json=body)
        assert answer.status_code == 201, answer.text

    def got_mail(self, name: str) -> bool:
        """Of a job worker that writes it to its files."""
        return self.inside("worker", f"grep -q 'To: {name}@' /tmp/mail/*.eml").returncode == 0

    def ready(self) -> None:
        """Until the database answers again."""
        with self.client(**{"Cache-Control": "no-cache"}) as client:
            wait_until(lambda: client.get("/v1/books").status_code == 200, "an answer")

    def leftovers(self) -> str:
        """Containers, volumes and networks of it."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
        return "".join(self.done("docker", *kind, "--quiet", "--filter", label) for kind in kinds)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.1)


@contextmanager
def stack(folder: Path, name: str, subnet: str, files: list[str]) -> Iterator[Stack]:
    """A copy of what is to be committed, and all of its stack removed at the end."""
    if shutil.which("docker") is None:
        pytest.fail("Install Docker with its compose plugin to test the stacks")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for file in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if file and (ROOT / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    ports = ("HTTP", "HTTPS", "API", "DEBUGGER", "DATABASE", "REDIS", "PROMETHEUS", "GRAFANA", "S3")
    variables = {f"{port}_PORT": str(free_port()) for port in ports}
    variables |= {
        "COMPOSE_PROJECT_NAME": f"{name}-{os.getpid()}",
        "IMAGE": f"{name}-{os.getpid()}",
        "WEB_SUBNET": subnet,
        "SECRETS": "./secrets",
        # The tests are one client, and no patient one.
        "EDGE_RATE": "100000",
        "EDGE_CONNECTIONS": "1000",
        "LIMITS_READS_RATE": "100000",
        "LIMITS_READS_BURST": "100000",
        "LIMITS_WRITES_RATE": "100000",
        "LIMITS_WRITES_BURST": "100000",
        "LIMITS_LOGIN_RATE": "100000",
        "LIMITS_LOGIN_BURST": "100000",
    }
    made = Stack(folder, files, variables)
    try:
        yield made
    finally:
        made.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
        images = made.done("docker", "images", "--quiet", variables["IMAGE"] + "*").split()
        if images:
            made.done("docker", "rmi", "--force", *images)
        assert made.leftovers() == ""
