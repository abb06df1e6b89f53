"""A container has the secrets it needs and no other; each changes while the service serves."""

import asyncio
import json
import re

import pytest

from app.about import NAME
from tests.compose.stack import Finished, Stack, wait_until
from tests.compose.subject import PATH, TABLE, new
from tests.compose.test_operations import commands, failures, make
from tests.load import load
from tests.process import ROOT


def table() -> dict[str, set[str]]:
    """The secrets of each service, as the documentation has them."""
    text = (
        (ROOT / "docs" / "deploy.md").read_text().split("\n## Secrets\n")[1].partition("\n## ")[0]
    )
    found: dict[str, set[str]] = {}
    for names, services in re.findall(
        r"(?m)^\| (`\w+`(?:, `\w+`)*) \| (`[^|]+) \| [^|]+ \|$", text
    ):
        for service in re.findall("`([a-z0-9-]+)`", services):
            found.setdefault(service, set()).update(re.findall(r"`(\w+)`", names))
    return found


def test_container_has_the_secrets_that_the_documentation_says(small: Stack):
    config = json.loads(small.compose("--profile", "*", "config", "--format", "json"))
    mounts = {
        name: {secret["source"]: secret["target"] for secret in service["secrets"]}
        for name, service in config["services"].items()
        if service.get("secrets")
    }
    services = ("nginx", "api", "worker", "mariadb", "valkey", "queue", "backup")
    seen = {name: small.inside(name, "ls /run/secrets").stdout.split() for name in services}
    run = ("run", "--rm", "--no-deps", "-T", "migrate", "ls", "/run/secrets")
    seen["migrate"] = small.compose(*run).split()

    documented = table()
    documented["drill"] = documented["mariadb"]
    assert {name: set(sources) for name, sources in mounts.items()} == documented
    for name, files in seen.items():
        targets = mounts.get(name, {}).values()
        assert sorted(files) == sorted(target.rpartition("/")[2] for target in targets), name


def test_secret_is_in_nothing_that_docker_shows(small: Stack):
    values = {file.name: file.read_text() for file in (small.folder / "secrets").iterdir()}
    containers = small.compose("ps", "--all", "--quiet").split()
    shown = [small.inspect(container) for container in containers]
    names = {line.partition("=")[0] for one in shown for line in one["Config"]["Env"]}

    assert len(shown) >= 8
    assert values.keys() == set().union(*table().values())
    assert not names & {name.upper() for name in values}
    text = json.dumps(shown)
    assert [name for name, value in values.items() if value and value in text] == []


@pytest.mark.parametrize("file", [".env", "production.env"])
def test_secret_among_the_settings_stops_a_roll(small: Stack, file: str):
    (small.folder / file).write_text("MAIL_PASSWORD=hidden\n")
    refused = small.run("make", "--silent", "roll")
    (small.folder / file).unlink()

    assert refused.returncode != 0
    assert "mail_password is a secret: move its value" in refused.stderr
    assert "hidden" not in refused.stderr


def test_copy_off_site_without_its_key_says_so(small: Stack):
    run = ("docker", "compose", *small.files, "run", "--rm", "--no-deps", "-T")
    copy = ("-e", "REPOSITORY=offsite", "-e", "BACKUP_OFFSITE=sftp://me@127.0.0.1//backups")
    refused = small.run(*run, *copy, "backup", "restic", "snapshots")

    assert refused.returncode != 0
    assert "secrets/backup_offsite_key is empty: write the key into it" in refused.stderr


def as_account(stack: Stack, name: str, statement: str, password: str | None = None) -> Finished:
    secret = (
        "database_password"
        if name == NAME
        else f"database_{name.removeprefix(f'{NAME}_')}_password"
    )
    text = (stack.folder / "secrets" / secret).read_text() if password is None else password
    client = ("mariadb", "-h127.0.0.1", f"-u{name}", "-Ne", statement)
    compose = ("docker", "compose", *stack.files, "exec", "-T", "-e", "MYSQL_PWD")
    return stack.run(*compose, "mariadb", *client, MYSQL_PWD=text)


ALLOWED = [
    (NAME, f"SELECT COUNT(*) FROM {NAME}.{TABLE}"),
    (NAME, f"DELETE FROM {NAME}.{TABLE} WHERE id < 0"),
    (NAME, "SELECT @@max_connections"),
    (f"{NAME}_migrate", "CREATE TABLE bookshelf.tried (id INT); DROP TABLE bookshelf.tried"),
    (f"{NAME}_migrate", f"DELETE FROM {NAME}.{TABLE} WHERE id < 0"),
    ("observe", "SHOW ENGINE INNODB STATUS"),
    ("observe", "SHOW ALL SLAVES STATUS"),
    ("observe", "SELECT * FROM information_schema.innodb_cmp"),
    ("observe", "SELECT COUNT(*) FROM performance_schema.threads"),
    ("backup", "SELECT COUNT(*) FROM bookshelf.users"),
    ("backup", "SHOW MASTER STATUS"),
]
REFUSED = [
    (NAME, "CREATE TABLE bookshelf.tried (id INT)"),
    (NAME, f"DROP TABLE {NAME}.{TABLE}"),
    (NAME, "SELECT * FROM mysql.global_priv"),
    (f"{NAME}_migrate", "SELECT * FROM mysql.global_priv"),
    (f"{NAME}_migrate", "CREATE DATABASE tried"),
    ("observe", "SELECT COUNT(*) FROM bookshelf.users"),
    ("backup", f"DELETE FROM {NAME}.{TABLE} WHERE id < 0"),
    ("backup", "SELECT * FROM mysql.global_priv"),
]


def test_account_of_the_database_may_do_its_work_and_no_more(small: Stack):
    """Also where it could do more, as in a database from before there were several."""
    small.sql(f"GRANT ALL ON *.* TO {NAME}; GRANT ALL ON {NAME}.* TO observe")
    small.compose("restart", "mariadb")
    small.ready()
    allowed = [as_account(small, *each).stderr for each in ALLOWED]
    refused = [as_account(small, *each).stderr for each in REFUSED]
    password = (small.folder / "secrets" / "database_backup_password").read_text()
    dump = f"MYSQL_PWD={password} mariadb-dump -ubackup --single-transaction"
    dumped = small.inside("mariadb", f"{dump} --triggers --routines --events {NAME}")

    assert allowed == [""] * len(ALLOWED)
    assert [line for line in refused if "denied" not in line] == []
    assert "-- Dump completed" in dumped.stdout, dumped.stderr


def test_password_may_have_any_character(small: Stack):
    file = small.folder / "secrets" / "database_observe_password"
    before = file.read_text()
    file.write_text('it\'s a \\ "back`slash" $(x) %\n')
    finished = small.run("make", "--silent", "reload")
    now = as_account(small, "observe", "DO 0", file.read_text().strip())
    file.write_text(before)
    again = [small.run("make", "--silent", "reload") for _ in range(2)]

    assert finished.returncode == 0, finished.stderr
    assert now.stderr == ""
    assert [one.returncode for one in again] == [0, 0]
    assert "ERROR" in as_account(small, "observe", "DO 0", "it's a \\").stderr


async def test_old_key_of_tokens_counts_while_it_is_named(small: Stack):
    old_keys = small.folder / "secrets" / "tokens_old_keys"
    with small.editor() as client:
        key = small.folder / "secrets" / "tokens_key"
        old_keys.write_text(key.read_text())
        key.unlink()
        small.done("make", "--silent", "secrets")
        named = await make(small, "roll")
        during = client.get("/v1/users/me")
        old_keys.write_text("")
        unnamed = await make(small, "roll")
        after = client.get("/v1/users/me")

    assert (named.returncode, unnamed.returncode) == (0, 0)
    assert (during.status_code, after.status_code) == (200, 401)


CHANGED = [
    {"tokens_key", "tokens_old_keys"},
    {f"database{name}_password" for name in ("", "_migrate", "_observe", "_backup")},
    {"redis_password"},
    {"jobs_password"},
]


def secrets_of(stack: Stack, service: str) -> dict[str, str]:
    """As its container has them: those of the files that it was started with."""
    command = 'cd /run/secrets && for one in *; do echo "$one=$(cat "$one")"; done'
    lines = stack.inside(service, command).stdout.splitlines()
    assert lines
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize("number", range(len(CHANGED)))
async def test_secrets_change_as_the_runbook_says(small: Stack, number: int):
    before = {file.name: file.read_text() for file in (small.folder / "secrets").iterdir()}
    block = commands("Rotating secrets")[number]
    async with load(small.url, PATH, headers={"Cache-Control": "no-cache"}) as seen:
        await seen.until(10)
        finished = await asyncio.to_thread(small.run, "bash", "-euc", block)
        await seen.until(100)
    after = {file.name: file.read_text() for file in (small.folder / "secrets").iterdir()}
    with small.editor() as client:
        written = client.post(PATH, json=new(f"After change {number}"))
    with small.client() as client:
        wait_until(
            lambda: client.get(f"{PATH}?limit=3").headers.get("X-Cache") == "HIT",
            "a response of the cache",
        )
    old = as_account(small, NAME, "DO 0", before["database_password"])
    seen_inside = {service: secrets_of(small, service) for service in ("api", "worker", "backup")}

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert {name for name in before if before[name] != after[name]} == CHANGED[number]
    assert written.status_code == 201
    assert seen.responses.keys() == {200}, seen.errors
    assert failures(small, seen) == []
    assert ("denied" in old.stderr) == ("database_password" in CHANGED[number])
    for service, values in seen_inside.items():
        assert values == {name: after[name].strip() for name in values}, service
