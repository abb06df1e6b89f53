"""`python -m app ...` with what is wrong: one line that says what, and no traceback."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url, text
from typer.testing import CliRunner, Result

from app.cli import app, console
from app.commands import accounts as accounts  # adds its own to `app`
from app.development import commands as commands  # adds its own to `app`
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import embedded_valkey
from chassis.telemetry.logs import configure_logs
from chassis.telemetry.settings import LogSettings
from tests.databases import mariadb_only, sqlite_only
from tests.process import free_port


@pytest.fixture
def command(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Run a command in this process, which saves the second that a new one takes to start."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **variables: str) -> Result:
        for name, value in (environment | variables).items():
            monkeypatch.setenv(name, f"{value}")
        monkeypatch.setattr(console, "width", 300)
        return CliRunner().invoke(app, arguments, input="correct horse battery\n")

    return run


@mariadb_only
@pytest.mark.parametrize(
    "arguments",
    [
        ("migrate",),
        ("jobs",),
        ("import-books", f"{Path(__file__).parents[2]}/data/classics.csv"),  # sample
        ("create-user", "mary@example.com"),
        ("set-role", "mary@example.com", "editor"),
        ("set-password", "mary@example.com"),
        ("disable-user", "mary@example.com"),
        ("reset-totp", "mary@example.com"),
        ("renew-totp",),
        ("audit",),
        ("check",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_database_that_cannot_be_used_is_one_line(
    command: Callable[..., Result], database_url: str, arguments: tuple[str, ...]
):
    url = make_url(database_url)
    unreachable = URL.create(url.drivername, "u", None, "127.0.0.1", free_port(), "nowhere")
    faults = {
        "Can't connect to MySQL server": unreachable,
        "Access denied for user 'nobody'": url.set(username="nobody", password="pw"),
        "Unknown database 'nowhere'": url.set(database="nowhere"),
    }
    for reason, fault in faults.items():
        result = command(*arguments, DATABASE_URL=fault.render_as_string(hide_password=False))

        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        [line] = [line for line in result.output.splitlines() if reason in line]
        assert arguments == ("check",) or line == result.output.splitlines()[-1]


@sqlite_only
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("migrate", "--to", "nonsense"), 1, "Can't locate revision identified by 'nonsense'"),
        (("migrate", "--to", ""), 1, "no revision is given; the newest is head"),
        (("migrate", "--to=-99"), 1, "Relative revision -99 didn't produce 99 migrations"),
        (("jobs", "--requeue", "9" * 20), 2, "Invalid value for '--requeue'"),
        (("jobs", "--discard", "0"), 2, "Invalid value for '--discard'"),
        (("audit", "--since", "yesterday"), 2, "Invalid value for '--since'"),
        (("audit", "--limit", "101"), 2, "Invalid value for '--limit'"),
        (("audit", "--account", "mary"), 1, "email: An email address must have an @-sign"),
        (("audit", "--account", "0"), 1, "There is no account 0"),
        (("set-password", "mary@example.com"), 1, "There is no account for mary@example.com"),
        (("enable-user", "mary@example.com"), 1, "There is no account for mary@example.com"),
        (("demo-sellers", "--port", "99999"), 2, "Invalid value for '--port'"),  # sample
        # sample: begin
        (("import-books", "nowhere.csv"), 1, "Nothing was imported: [Errno 2] No such file"),
        # sample: end
        (("no-such-command",), 2, "No such command 'no-such-command'"),
        (("make-migration", "Orders"), 1, "'Orders' is not a name such as orders"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_argument_is_named(
    command: Callable[..., Result], arguments: tuple[str, ...], code: int, reason: str
):
    result = command(*arguments)

    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    assert reason in result.output


@sqlite_only
def test_migrate_goes_up_and_down_by_steps(command: Callable[..., Result], tmp_path: Path):
    url = f"sqlite+aiosqlite:///{tmp_path}/service.db"

    steps = [command("migrate", f"--to={to}", DATABASE_URL=url) for to in ("0002", "-1", "+1")]

    assert [step.output for step in steps] == [
        "Schema: empty -> 0002\n",
        "Schema: 0002 -> 0001\n",
        "Schema: 0001 -> 0002\n",
    ]


async def test_each_statement_is_logged_once_in_the_format_of_the_log(
    database_url: str, capfd: pytest.CaptureFixture[str]
):
    configure_logs(LogSettings(format="json"))
    engine = create_engine(DatabaseSettings(url=database_url, echo=True), "read")
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 41"))
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
        await engine.dispose()

    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["message"] for line in lines].count("SELECT 41") == 1
    assert {line["logger"] for line in lines} == {"sqlalchemy.engine.Engine"}


@sqlite_only
@pytest.mark.parametrize("variable", ["REDIS_URL", "JOBS_URL"])
@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
def test_check_refuses_limits_in_a_server_that_evicts(
    command: Callable[..., Result], tmp_path: Path, variable: str, policy: str
):
    """In production; without JOBS_URL they lie in the server of the cache."""
    production = {"ENVIRONMENT": "production", "FORWARDED_ALLOW_IPS": "10.0.0.0/24"}
    production |= {"TOKENS_KEY": "k" * 32, "PUBLIC_URL": "https://shop.example"}
    line = f"the server of limits and jobs evicts ({policy}); set JOBS_URL to one that does not"
    with embedded_valkey(tmp_path / "valkey", ["--maxmemory-policy", policy]) as server:
        development = command("check", **{variable: server.url})
        checked = command("check", **{variable: server.url}, **production)

    evicts = policy == "allkeys-lru"
    assert (development.exit_code, checked.exit_code) == (0, int(evicts))
    assert (line in development.output, line in checked.output) == (evicts, evicts)


@sqlite_only
@pytest.mark.parametrize("variables", [{}, {"MAIL_URL": "smtp://mail.example:587"}])
def test_check_says_that_mail_waits(command: Callable[..., Result], variables: dict[str, str]):
    """Without it nobody gets a link that verifies his address."""
    result = command("check", **variables)

    assert result.exit_code == 0
    assert ("MAIL_URL is not set" in result.output) == (not variables)
