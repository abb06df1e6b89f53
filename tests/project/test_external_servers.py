"""docker-compose.external.yml: no server of docker-compose.yml is left, and each URL has TLS."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from app.settings import Settings
from tests.process import ROOT

SERVERS = {"mariadb", "valkey", "queue"}
PROCESSES = ("api", "worker", "migrate")


class Compose(yaml.SafeLoader):  # type: ignore[misc]  # it has no types here
    """With its `!override` and `!reset`, which replace what the first file has."""


Compose.add_multi_constructor("!", lambda loader, _, node: loader.construct_mapping(node))


def services(file: str) -> dict[str, Any]:
    read = yaml.load((ROOT / file).read_text("utf-8"), Compose)
    found: dict[str, Any] = read["services"]
    return found


def test_nothing_needs_a_server_that_does_not_run():
    before, after = services("docker-compose.yml"), services("docker-compose.external.yml")
    gone = {name for name, service in after.items() if service.get("profiles")}
    needing = {
        name
        for name, service in before.items()
        if "profiles" not in service and SERVERS & service.get("depends_on", {}).keys()
    }

    assert gone == SERVERS | {"backup"}
    assert needing == {*PROCESSES}
    for name in PROCESSES:
        assert after[name]["depends_on"].keys() == before[name]["depends_on"].keys() - SERVERS
    # Those of the others have a way out already; `data` has none.
    assert {"outbound"} & {*before["api"]["networks"]} == {"outbound"}
    assert {"outbound"} & {*before["worker"]["networks"]} == {"outbound"}
    assert after["migrate"]["networks"] == ["outbound"]


@pytest.mark.parametrize("name", PROCESSES)
def test_servers_are_reached_by_tls_and_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    service = services("docker-compose.external.yml")[name]
    [mount] = service["volumes"]
    authorities = f"ssl_ca={mount['target']}", f"ssl_ca_certs={mount['target']}"
    given = {"EXTERNAL_DATABASE": "db:3307", "EXTERNAL_CACHE": "u@cache:6380"}
    given |= {"EXTERNAL_QUEUE": "queue", "FILES_URL": "s3://bucket"}
    urls = {
        variable: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: given[found[1]], value)
        for variable, value in service["environment"].items()
    }
    urls.pop("EXTERNAL_DATABASE", None)

    assert {urlsplit(urls[name]).scheme for name in ("REDIS_URL", "JOBS_URL")} == {"rediss"}
    assert {urlsplit(urls[name]).query for name in ("REDIS_URL", "JOBS_URL")} == {authorities[1]}
    assert parse_qs(urlsplit(urls["DATABASE_URL"]).query) == {"ssl_ca": [mount["target"]]}
    if name == "migrate":
        assert f"?{authorities[0]}" in service["entrypoint"][2]
    monkeypatch.chdir(tmp_path)
    for variable, url in ({"DATABASE_NAME": "named"} | urls).items():
        # The file is there in a container.
        monkeypatch.setenv(variable, url.replace(f"?{authorities[0]}", "").split("?")[0])
    settings = Settings()
    assert "named@db:3307/named" in settings.database.url.get_secret_value()
