"""`make run` from the inside: a copy of the project, its own servers, real signals."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.about import NAME
from app.development.sample import EDITOR
from chassis.auth.settings import DEVELOPMENT_KEY
from tests.mail import read_mail
from tests.process import ROOT, Service, free_port, wait_until

FOLDERS = ["app", "chassis", "migrations"]
FOLDERS += ["data"]  # sample


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Where a run leaves its data: not in the developer's own `var`."""
    return copy_checkout(tmp_path / "checkout")


def copy_checkout(folder: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "gunicorn_config.py", folder)
    return folder


def serve(checkout: Path, *options: str, **variables: Any) -> subprocess.Popen[bytes]:
    environment = {"PORT": str(free_port()), "LOG_FORMAT": "json", "WEB_CONCURRENCY": "2"}
    environment |= {name: str(value) for name, value in variables.items()}
    with (checkout / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "app", "serve", *options],
            cwd=checkout,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@asynccontextmanager
async def served(checkout: Path, *options: str) -> AsyncIterator[Service]:
    port = free_port()
    process = serve(checkout, *options, PORT=port)
    service = Service(process, f"http://127.0.0.1:{port}", checkout / "log")
    try:
        await service.wait_for("Application startup complete")
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            await wait_until(lambda: process.poll() is not None, "the end")


def processes_of(checkout: Path) -> list[str]:
    """The command lines of all processes that run in this folder or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(checkout) in f"{command} {(process / 'cwd').readlink()}":
                found.append(command)
        except OSError:
            continue  # it has ended, or is none of ours
    return found


async def test_first_run_brings_everything_and_ctrl_c_leaves_nothing(checkout: Path):
    async with served(checkout) as service, service.client() as client:
        ready = (await client.get("/health/ready")).json()
        running = processes_of(checkout)
        service.signal(signal.SIGINT)
        await wait_until(lambda: service.process.poll() is not None, "the end")

    output = service.output.read_text()
    assert "Limits     100000 requests/s for a client" in output
    assert ready == {"status": "ready", "database": "ok", "redis": "ok"}
    assert f"SQLite in {checkout}/var/{NAME}.db" in output
    assert f"Editor     {EDITOR.email}" in output
    assert f"{service.url}/docs" in output
    assert stat.S_IMODE((checkout / "var/tokens_key").stat().st_mode) == 0o600
    assert "Ctrl-C" in output
    assert "Traceback" not in output
    assert service.process.returncode == 0
    assert len(running) >= 4  # this command, Gunicorn, its workers and Valkey
    assert processes_of(checkout) == []


@pytest.mark.drill
async def test_mail_is_sent_by_a_job_worker_that_is_started_again(checkout: Path):
    body = {"email": "mary@example.com", "name": "Mary", "password": "frankenstein"}
    async with served(checkout) as service, service.client() as client:
        await service.wait_for("Job worker started")
        os.kill(job_worker_of(service), signal.SIGKILL)
        await service.wait_for("Job worker started", 2)
        response = await client.post("/v1/users", json=body)
        await wait_until(
            lambda: body["email"] in {mail["To"] for mail in read_mail(checkout / "var/mail")},
            "the mail",
        )

    assert response.status_code == 201
    assert "The job worker ended with -9; another one starts" in service.output.read_text()
    assert service.process.returncode == 0


def job_worker_of(service: Service) -> int:
    """Of the processes that this command has forked, the last."""
    return max(service.workers)


@pytest.mark.drill
async def test_second_run_keeps_the_data(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    form = {"grant_type": "password", "username": EDITOR.email, "password": EDITOR.password}
    async with served(checkout) as service, service.client() as client:
        tokens = (await client.post("/v1/tokens", data=form)).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        await client.patch("/v1/users/me", json={"name": "Changed"}, headers=headers)
    # As an old `.env` may have it: the published key is no key.
    monkeypatch.setenv("TOKENS_KEY", DEVELOPMENT_KEY)
    async with served(checkout) as service, service.client() as client:
        user = await client.get("/v1/users/me", headers=headers)

    assert user.status_code == 200  # the key is the same
    assert user.json()["name"] == "Changed"
    assert "as there was nobody" not in service.output.read_text()


@pytest.mark.drill
async def test_killed_run_takes_its_servers_along(checkout: Path):
    async with served(checkout) as service:
        service.process.kill()
        service.process.wait()
        await wait_until(lambda: processes_of(checkout) == [], "the end of all of them")


@pytest.mark.drill
async def test_reload_serves_a_change_of_the_source(checkout: Path):
    async with (
        served(checkout, "--reload") as service,
        service.client() as client,
    ):
        # Before it, nobody watches for it: it would begin with the changed source.
        await service.wait_for("Job worker started")
        main = checkout / "app" / "main.py"
        main.write_text(main.read_text().replace("title=TITLE", 'title="Changed"'))
        await service.wait_for("Application startup complete", 2)
        document = (await client.get("/openapi.json")).json()
        await service.wait_for("Job worker started", 2)  # as it was started again, too
        worker = checkout / "chassis" / "job_worker" / "run.py"
        worker.write_text(
            worker.read_text().replace("Job worker started", "Changed worker started")
        )
        await service.wait_for("Changed worker started")

    assert document["info"]["title"] == "Changed"
    assert processes_of(checkout) == []


def test_taken_port_is_one_clear_line(checkout: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve(checkout, PORT=port)

        assert process.wait(30) == 1
    assert (checkout / "log").read_text().splitlines() == [
        f"Cannot listen on 127.0.0.1:{port}: Address already in use. "
        "Set PORT or BIND to something else, for example: make run PORT=8001"
    ]
    assert processes_of(checkout) == []


def test_folder_that_cannot_be_made_is_one_clear_line(checkout: Path):
    (checkout / "var").write_text("a file where the folder should be")

    process = serve(checkout)

    assert process.wait(30) == 1
    assert (checkout / "log").read_text() == f"Cannot write to {checkout}/var: File exists\n"


def test_production_brings_its_own_servers_or_does_not_start(checkout: Path):
    process = serve(checkout, ENVIRONMENT="production")

    assert process.wait(30) == 1
    lines = (checkout / "log").read_text().splitlines()
    assert lines[0] == "The settings are not usable:"
    names = [line.split(":")[0].strip() for line in lines[1:]]
    assert names == ["PUBLIC_URL", "DATABASE_URL", "REDIS_URL", "TOKENS_KEY"]
