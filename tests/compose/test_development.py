"""`docker compose up`, with no step before it."""

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from app.development.sample import EDITOR
from tests.compose.stack import Stack, leftovers, stack, wait_until
from tests.compose.subject import PATH, new


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("development")
    with stack(folder, "test-development", []) as made:
        made.compose("up", "--detach", "--wait")
        yield made


# sample: begin
def test_sample_data_is_there_behind_nginx(development: Stack):
    with development.client() as client:
        response = client.get("/v1/books?limit=100")

    assert response.status_code == 200
    assert len(response.json()["items"]) == 100


# sample: end


def test_well_known_editor_writes_at_the_service_itself(development: Stack):
    url = f"http://127.0.0.1:{development.variables['API_PORT']}"
    form = {"grant_type": "password", "username": EDITOR.email, "password": EDITOR.password}
    with httpx.Client(base_url=url) as client:
        token = client.post("/v1/tokens", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        made = client.post(PATH, json=new("Somebody"), headers=headers)
        page = client.get("/docs")

    assert (made.status_code, page.status_code) == (201, 200)


def test_log_says_where_it_is_published(development: Stack):
    assert f"Published at {development.url};" in development.compose("logs", "api")


@pytest.mark.parametrize("service", ["api", "mariadb", "valkey", "nginx"])
def test_ports_are_on_this_machine_only(development: Stack, service: str):
    [container] = development.containers(service)
    published = development.inspect(container)["HostConfig"]["PortBindings"]

    addresses = {binding["HostIp"] for bindings in published.values() for binding in bindings}
    assert addresses == {"127.0.0.1"}


def test_edit_of_the_source_is_served(development: Stack):
    source = development.folder / "app" / "main.py"
    source.write_text(source.read_text().replace("title=TITLE", 'title="Edited"'))

    with development.client() as client:
        wait_until(
            lambda: client.get("/openapi.json").json().get("info", {}).get("title") == "Edited",
            "the edited title",
        )


def test_mail_is_caught_and_shown(development: Stack):
    development.register("mary")

    wait_until(
        lambda: "To: mary@example.com" in development.compose("logs", "--no-log-prefix", "mail"),
        "her mail",
    )


def test_edit_of_a_job_is_taken_up_by_the_worker(development: Stack):
    source = development.folder / "chassis" / "job_worker" / "run.py"
    text = source.read_text()
    assert "Job worker started" in text
    source.write_text(text.replace("Job worker started", "Edited worker started"))

    wait_until(
        lambda: "Edited worker" in development.compose("logs", "--no-log-prefix", "worker"),
        "the edited worker",
    )


def test_statements_and_debugger_are_there_when_asked_for(development: Stack):
    development.compose("up", "--detach", "--wait", ECHO="1", DEBUGGER="1")
    with development.client() as client:
        assert client.get(f"{PATH}?limit=1").status_code == 200
    logs = development.compose("logs", "--no-log-prefix", "api")
    listening = development.inside("api", "grep -q ':162E 00000000:0000 0A' /proc/net/tcp")

    assert "SELECT" in logs
    assert listening.returncode == 0  # 0x162E is 5678


def test_same_isolation_as_in_production(development: Stack):
    status = development.inside("api", "id -u; grep CapEff /proc/self/status; touch /srv/x")

    uid, capabilities = status.stdout.splitlines()
    assert uid != "0"
    assert int(capabilities.split()[1], 16) == 0
    assert "Read-only file system" in status.stderr


def test_down_leaves_nothing(tmp_path: Path, development: Stack):
    development.compose("down", "--volumes")

    assert not any(leftovers(development.project).values())
