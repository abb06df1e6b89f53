"""Alerts that reach somebody: what happens in a running stack is told to a receiver."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from app.about import NAME
from tests.compose.alerting import (
    BY_HAND,
    IN_MARIADB,
    PROFILE,
    Notices,
    alerting_stack,
    alertmanager,
    firing,
    query,
    runbook,
    told,
)
from tests.compose.stack import Stack, wait_until


@pytest.fixture(scope="module")
def alerting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("alerting")
    with alerting_stack(folder, "test-alerts", API_REPLICAS="2") as made:
        yield made


def test_healthy_stack_is_scraped_and_quiet(alerting: Stack):
    jobs = {"api", "jobs", "mariadb", "valkey", "queue", "nginx", "edge", "certificate", "node"}
    jobs |= {"alertmanager", "prometheus"}

    def up() -> set[str]:
        return {target["metric"]["job"] for target in query(alerting, "up == 1")}

    wait_until(lambda: up() >= jobs, "all targets")
    for needed in (
        "mysql_up == 1",
        'redis_up{job="valkey"} == 1',
        'redis_up{job="queue"} == 1',
        f'redis_memory_max_bytes{{job="queue"}} == {64 << 20}',
        "container_memory_limit_bytes > 0",
        "mysql_global_status_threads_connected / mysql_global_variables_max_connections",
        "node_filesystem_avail_bytes / node_filesystem_size_bytes",
        "node_filesystem_readonly == 0",
        "node_filesystem_files_free",
        "node_vmstat_oom_kill",
        "node_memory_MemAvailable_bytes",
        'replicas:wanted{job="api"} == 2',
    ):
        wait_until(partial(is_found, alerting, needed), needed)
    # The machine of the tests may have reasons of its own.
    expected = {"Watchdog", "OutOfMemory", *BY_HAND}
    wait_until(lambda: firing(alerting) <= expected, "the end of alerts of the start")


def is_found(made: Stack, expression: str) -> bool:
    return bool(query(made, expression))


def test_watchdog_is_heard_again_and_again(alerting: Stack):
    def heard() -> list[str]:
        return [alert["labels"]["alertname"] for to, alert in told(alerting) if to == "watchdog"]

    wait_until(lambda: len(heard()) > 2, "the watchdog")
    assert set(heard()) == {"Watchdog"}


def test_service_that_is_down_pages_and_what_follows_from_it_does_not(alerting: Stack):
    notices = Notices(alerting, "ServiceDown", "FewerReplicas")
    alerting.compose("stop", "api")
    notices.wait("firing", "ServiceDown")

    def states() -> list[str]:
        follows = alertmanager(alerting, "alerts", filter=["alertname=FewerReplicas", "job=api"])
        return [alert["status"]["state"] for alert in follows]

    wait_until(lambda: states() == ["suppressed"], "inhibition")
    runbook(alerting, "ServiceDown", "compose up -d --wait --no-recreate api")
    notices.wait("resolved", "ServiceDown")


def test_fewer_containers_than_wanted_are_a_ticket(alerting: Stack):
    notices = Notices(alerting, "FewerReplicas", "ServiceDown")
    alerting.done("docker", "stop", alerting.containers("api")[0])
    notices.wait("firing", "FewerReplicas", job="api")
    runbook(alerting, "FewerReplicas", "compose up -d --wait --no-recreate api worker")
    notices.wait("resolved", "FewerReplicas", job="api")

    assert not notices.has("firing", "pages", alertname="FewerReplicas")


def test_exporter_and_server_that_are_away(alerting: Stack):
    notices = Notices(alerting, "ServerDown", "ExporterDown")
    alerting.compose("stop", "queue", "node-exporter")
    notices.wait("firing", "ServerDown", job="queue")
    notices.wait("firing", "ExporterDown", job="node")
    runbook(alerting, "ServerDown", "compose up -d --wait --no-recreate queue")
    runbook(alerting, "ExporterDown", "compose up -d --no-recreate node-exporter")
    notices.wait("resolved")


def test_backup_that_is_old_or_of_which_nothing_is_known(alerting: Stack):
    notices = Notices(alerting, "BackupOld", "BackupMissing")
    write = "cd /var/lib/node-exporter && %s backup.prom >new; mv new backup.prom"
    old = r"sed -E 's/(kind=\"database\"\}) .*/\1 1000000000/'"
    assert alerting.inside("backup", write % old).returncode == 0
    notices.wait("firing", "BackupOld")
    runbook(alerting, "BackupOld", "make snapshot")
    notices.wait("resolved", "BackupOld")
    assert alerting.inside("backup", write % "grep -v database").returncode == 0
    notices.wait("firing", "BackupMissing")
    runbook(alerting, "BackupMissing", "make snapshot")
    notices.wait("resolved", "BackupMissing")


def test_queue_that_fills_up(alerting: Stack):
    notices = Notices(alerting, "ValkeyMemoryHigh")
    each = "for i in $(seq 24); do"
    client = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli"
    fill = f"{each} head -c 2000000 /dev/zero | {client} -x set filler:$i; done >/dev/null"
    assert alerting.inside("queue", fill).returncode == 0
    notices.wait("firing", job="queue")
    assert "filler" in runbook(alerting, "ValkeyMemoryHigh", "compose exec queue sh -c")
    drop = f"{each} {client} unlink filler:$i; done >/dev/null"
    assert alerting.inside("queue", drop).returncode == 0
    notices.wait("resolved", job="queue")


def test_connections_that_a_client_has_forgotten(alerting: Stack):
    notices = Notices(alerting, "ConnectionsNearLimit")
    # Room is left for the service and the exporter, which could not connect to tell.
    alerting.sql("SET GLOBAL max_connections = 50")
    try:
        password = "MYSQL_PWD=$(cat /run/secrets/database_migrate_password)"
        client = f"{password} mariadb --user {NAME}_migrate"
        forget = f"for i in $(seq 41); do {client} -e 'SELECT SLEEP(600)' & done >/dev/null 2>&1"
        assert alerting.inside("mariadb", forget).returncode == 0
        notices.wait("firing")
        listed = runbook(alerting, "ConnectionsNearLimit", IN_MARIADB + "SELECT")
        runbook(alerting, "ConnectionsNearLimit", IN_MARIADB, NAME=f"{NAME}_migrate")
        notices.wait("resolved")
    finally:
        alerting.sql("SET GLOBAL max_connections = 300")

    assert re.search(rf"{NAME}_migrate\s+\S+\s+Query\s+41\b", listed)


def test_memory_that_is_used_up(alerting: Stack):
    notices = Notices(alerting, "MemoryNearLimit", "OutOfMemory")
    container = alerting.containers("api")[0]
    networks = alerting.inspect(container)["NetworkSettings"]["Networks"].values()
    own = "|".join(network["IPAddress"] for network in networks)
    left = f'container_memory_limit_bytes{{instance=~"({own}):.*"}} * 0.95 - container_memory_bytes'
    size = int(float(query(alerting, f"min({left})")[0]["value"][1]))
    keep = f"import time; kept = b'x' * {size}; time.sleep(600)"
    alerting.done("docker", "exec", "--detach", container, "python", "-c", keep)
    name = f"{alerting.project}-hog"
    run = ("docker", "run", "--name", name, "--memory=64m", "--memory-swap=64m")
    hog = alerting.run(
        *run, f"{alerting.variables['IMAGE']}:latest", "python", "-c", "b'x' * 2**30"
    )
    assert hog.returncode == 137
    notices.wait("firing")
    assert name in runbook(alerting, "OutOfMemory", "docker ps --all")
    alerting.done("docker", "rm", name)
    runbook(alerting, "MemoryNearLimit", "make roll")
    notices.wait("resolved")


def test_certificate_that_nothing_renews(alerting: Stack):
    names = ["CertificateExpires", "CertificateExpiresSoon"]
    notices = Notices(alerting, *names)
    folder = alerting.folder / "docker" / "nginx" / "certificates"

    def certificate(days: int) -> None:
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -days {days} -subj /CN=service.test"
        command += f" -keyout {folder}/privkey.pem -out {folder}/fullchain.pem"
        alerting.done(*command.split())
        (folder / "privkey.pem").chmod(0o644)

    for days, name in zip((8, 1), names, strict=True):
        certificate(days)
        alerting.done("make", "--silent", "reload")
        notices.wait("firing", name)
    certificate(90)
    runbook(alerting, "CertificateExpires", "make reload")
    notices.wait("resolved", "CertificateExpiresSoon")
    for file in folder.glob("*.pem"):
        file.unlink()
    alerting.done("make", "--silent", "reload")


def test_receiver_that_is_wrong(alerting: Stack):
    notices = Notices(alerting, "NotificationsFail")
    url = alerting.folder / "secrets" / "alert_watchdog_url"
    right = url.read_text()
    change = "compose up -d --wait --no-deps --force-recreate alertmanager"
    url.write_text("http://nowhere:8000")
    runbook(alerting, "NotificationsFail", change)
    notices.wait("firing")
    assert "nowhere" in runbook(alerting, "NotificationsFail", "compose logs --since 15m")
    url.write_text(right)
    runbook(alerting, "NotificationsFail", change)
    notices.wait("resolved")


def test_alertmanager_that_is_away_is_seen_in_prometheus(alerting: Stack):
    alerting.compose("stop", "alertmanager")
    wait_until(lambda: "AlertmanagerDown" in firing(alerting), "Prometheus to say so")
    runbook(alerting, "AlertmanagerDown", "compose up -d --wait --no-recreate alertmanager")
    wait_until(lambda: "AlertmanagerDown" not in firing(alerting), "its end")


def test_configuration_of_alertmanager_is_checked_before_it_is_used(alerting: Stack):
    routes = alerting.folder / "docker" / "alertmanager" / "alertmanager.yml"
    text = routes.read_text()
    routes.write_text(text.replace("receiver: pages", "receiver: nobody"))
    wrong = alerting.run("make", "--silent", "reload")
    routes.write_text(text.replace("repeat_interval: 24h", "repeat_interval: 23h"))
    alerting.done("make", "--silent", "reload")
    routes.write_text(text)

    assert wrong.returncode != 0
    assert 'undefined receiver "nobody"' in wrong.stderr
    assert "nothing has changed" in wrong.stderr
    assert "repeat_interval: 23h" in alertmanager(alerting, "status")["config"]["original"]


def start(made: Stack, *arguments: str, **variables: str) -> Any:
    """The start script by itself, with these settings."""
    command = ("docker", "compose", *made.files, *PROFILE, "run", "--rm", "--no-deps", "-T")
    return made.run(*command, "alertmanager", *arguments, **variables)


def test_mail_and_nothing_at_all_are_receivers_too(alerting: Stack):
    folder = alerting.folder / "none"
    folder.mkdir()
    for path in (alerting.folder / "secrets").iterdir():
        (folder / path.name).write_text("" if "alert" in path.name else path.read_text())
    mail = {"ALERT_PAGES_MAIL": "one@example.com, two@example.com", "ALERT_SMTP_USER": "alerts"}

    none = start(alerting, "--version", SECRETS="./none")
    without = start(alerting, "check", **mail)
    complete = start(alerting, "check", ALERT_SMTP="smtp.example.com:587", **mail)

    assert "pages: no receiver of .env or secrets/, so they are shown only on" in none.stdout
    assert "tickets: no receiver" in none.stdout
    assert "watchdog: no receiver, so nobody notices" in none.stdout
    assert without.returncode != 0
    assert "ALERT_SMTP is missing in .env" in without.stderr
    assert complete.returncode == 0, complete.stderr
