"""A stack with the profile `observability`, fast rules, and a receiver of notifications."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.compose.exporters import have_images
from tests.compose.stack import PRODUCTION, Stack, stack, wait_until
from tests.process import ROOT
from tests.prometheus import CONFIG

PROFILE = ("--profile", "observability")
# All but Grafana.
SERVICES = ["prometheus", "alertmanager", "mysqld-exporter", "redis-exporter", "nginx-exporter"]
SERVICES += ["edge-exporter", "node-exporter", "blackbox-exporter"]
# How commands of docs/runbooks.md for MariaDB begin.
IN_MARIADB = "compose exec mariadb sh -c 'MYSQL_PWD=$(cat /run/secrets/database_root_password) "
IN_MARIADB += 'mariadb -uroot -e "'
RULES = ["alerts.yml", "stack.yml"]
# Every other one is caused by a test; these were caused once, and ended as their runbook says.
BY_HAND = {
    "DiskFull": "takes a file system of its own, which only root can mount",
    "DiskFillsUp": "takes a file system of its own, which only root can mount",
    "MachineMemoryLow": "takes the memory of all else on the machine; read from another file",
    "LogLinesDropped": "takes a log driver that stalls, which Docker would have to reach",
    "CircuitOpen": "takes a route that asks another service",
}
del BY_HAND["CircuitOpen"]  # sample
# Writes what it is sent, as lines of its log.
RECEIVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.path, body.decode(), flush=True)
        self.send_response(200)
        self.end_headers()

HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@contextmanager
def alerting_stack(
    folder: Path, name: str, settings: str = "", **variables: str
) -> Iterator[Stack]:
    """`settings`: of the service, beside those of docker-compose.yml."""
    with stack(folder, name, PRODUCTION) as made:
        made.variables |= {"WEB_CONCURRENCY": "1", "BACKUP_OFFSITE": "none"} | variables
        have_images(made)
        made.done("make", "--silent", "secrets")
        (folder / "production.env").write_text(settings)
        hurry(made)
        for receiver in ("pages", "tickets", "watchdog"):
            url = f"http://receiver:8000/{receiver}"
            (folder / "secrets" / f"alert_{receiver}_url").write_text(url)
        made.compose("up", "--detach", "--wait")
        made.compose(*PROFILE, "up", "--detach", "--wait", *SERVICES)
        beside(made, "receiver", "monitoring", "python", "-c", RECEIVER)
        yield made


def beside(made: Stack, name: str, network: str, *command: str) -> str:
    """The name of one more container, of the service's image, in a network of the stack."""
    container = f"{made.project}-{name}"
    label = f"com.docker.compose.project={made.project}"
    run = ("docker", "run", "--detach", "--no-healthcheck", "--name", container, "--label", label)
    network = f"{made.project}_{network}"
    image = f"{made.variables['IMAGE']}:latest"
    made.done(*run, "--network", network, "--network-alias", name, image, *command)
    return container


def hurry(made: Stack) -> None:
    """The same rules, but seconds instead of minutes."""
    prometheus, alertmanager = (
        made.folder / "docker" / name for name in ("prometheus", "alertmanager")
    )
    rewrite(prometheus / "compose.yml", r"(scrape_interval:) \S+", r"\1 3s")
    rewrite(prometheus / "compose.yml", r"(evaluation_interval:) \S+", r"\1 1s")
    for rules in RULES:
        rewrite(prometheus / rules, r"( for:) \S+", r"\1 5s")
    # Some workers have to start within this time.
    rewrite(prometheus / "alerts.yml", r"(worker_\w+\{.*?\})\[15m\]", r"\1[45s]")
    for rules in ("rules.yml", *RULES):
        rewrite(prometheus / rules, r"\[\d+[mhd]\]", "[15s]")
    rewrite(alertmanager / "alertmanager.yml", r"(group_(?:wait|interval):) \S+", r"\1 1s")
    rewrite(alertmanager / "alertmanager.yml", "repeat_interval: 3m", "repeat_interval: 1s")


def rewrite(path: Path, pattern: str, by: str) -> None:
    path.write_text(re.sub(pattern, by, path.read_text()))


def query(made: Stack, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{made.variables['PROMETHEUS_PORT']}/api/v1/query"
    response = httpx.get(url, params={"query": expression}, timeout=60)
    assert response.status_code == 200, response.text
    result: list[dict[str, Any]] = response.json()["data"]["result"]
    return result


def firing(made: Stack) -> set[str]:
    alerts = query(made, 'ALERTS{alertstate="firing"}')
    return {alert["metric"]["alertname"] for alert in alerts}


def alertmanager(made: Stack, path: str, **params: Any) -> Any:
    url = f"http://127.0.0.1:{made.variables['ALERTMANAGER_PORT']}/api/v2/{path}"
    response = httpx.get(url, params=params, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def told(made: Stack) -> list[tuple[str, dict[str, Any]]]:
    """Receiver and alert, of each message since the start."""
    log = made.done("docker", "logs", f"{made.project}-receiver")
    messages = [line.split(" ", 1) for line in log.splitlines() if line.startswith("/")]
    return [(path[1:], alert) for path, body in messages for alert in json.loads(body)["alerts"]]


class Notices:
    """What the receivers are told of these alerts from now on, once none of them fires.

    Messages of earlier ones do not count: an alert that ends while another one inhibits it has no
    message of its end, so what an earlier test has left may look as if it still fires.
    """

    def __init__(self, made: Stack, *names: str) -> None:
        self.stack = made
        self.names = names
        wait_until(self.are_over, f"the end of earlier {', '.join(names)}")
        self.since = datetime.now(UTC)

    def are_over(self) -> bool:
        if query(self.stack, f'ALERTS{{alertname=~"{"|".join(self.names)}"}}'):
            return False
        known = alertmanager(self.stack, "alerts")
        return not {alert["labels"]["alertname"] for alert in known} & {*self.names}

    def has(self, status: str, receiver: str = "", **labels: str) -> bool:
        return any(
            to == (receiver or to)
            and alert["status"] == status
            and labels.items() <= alert["labels"].items()
            and datetime.fromisoformat(alert["startsAt"]) >= self.since
            for to, alert in told(self.stack)
        )

    def wait(self, status: str, *names: str, **labels: str) -> None:
        """Until the receiver of its severity was told so of each of them."""
        for name in names or self.names:
            to = f"{severity(name)}s"
            wait_until(partial(self.has, status, to, alertname=name, **labels), f"{name}: {status}")


def severity(alert: str) -> str:
    rules = "".join((CONFIG / name).read_text() for name in RULES)
    [found] = re.findall(rf"alert: {alert}\n(?:.|\n)*?severity: (\w+)", rules)
    return str(found)


def runbook(made: Stack, alert: str, command: str, **words: str) -> str:
    """The output of the command that docs/runbooks.md has under this alert and that begins so.

    `words`: what takes the place of which.
    """
    text = (ROOT / "docs" / "runbooks.md").read_text()
    [functions] = re.findall(r"(?s)```sh\n(.*?)```", text.split("\n## ")[0])
    section = " ".join(text.split(f"\n## {alert}\n")[1].split("\n## ")[0].split())
    printed = [one for one in re.findall("`([^`]+)`", section) if one.startswith(command)]
    [chosen] = {one for one in printed if all(word in one for word in words)}
    for word, value in words.items():
        chosen = chosen.replace(word, value)
    return made.done("bash", "-euc", f"{functions}\n{chosen}")
