"""`python -m app shell`, through its standard input."""

from pathlib import Path
from typing import Any

from tests.command import finish, start


def say(tmp_path: Path, environment: dict[str, Any], text: str) -> tuple[int, str, str]:
    return finish(start(tmp_path, "shell", **environment), text)


def test_prompt_awaits_and_has_what_a_worker_has(tmp_path: Path, environment: dict[str, Any]):
    lines = """
        async with sessions.write() as session:
            session.add(User(email="m@example.com", name="M", password_hash="", role="reader"))
            await session.commit()

        async with sessions.read() as session:
            found = (await session.scalars(select(User.email))).all()

        found
        (await UserService(resources).sessions.read().__aenter__()).__class__.__name__
        await redis.ping()
        settings.web.concurrency
        cache.__class__
    """.replace("\n        ", "\n")

    code, output, errors = say(tmp_path, environment, lines)

    assert code == 0, errors
    for shown in ("['m@example.com']", "True", "2", "<class 'chassis.cache.cache.Cache'>"):
        assert f"{shown}\n" in output
    assert "Traceback" not in errors


def test_error_is_shown_and_the_prompt_goes_on_until_exit(
    tmp_path: Path, environment: dict[str, Any]
):
    lines = "await missing\n1 +\nimport asyncio\nawait asyncio.sleep(0, 'slept')\nexit(3)\n1 / 0\n"

    code, output, errors = say(tmp_path, environment, lines)

    assert code == 3
    assert "NameError: name 'missing' is not defined" in errors
    assert "SyntaxError" in errors
    assert "shell.py" not in errors
    assert "'slept'\n" in output
    assert "ZeroDivisionError" not in errors


def test_servers_that_are_away_are_a_line(tmp_path: Path, environment: dict[str, Any]):
    code, _, errors = say(tmp_path, environment | {"REDIS_URL": "nonsense"}, "1")

    assert (code, "Traceback" in errors) == (1, False)
