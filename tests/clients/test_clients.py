"""The clients of `make client` against the service: `make test-client`."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from chassis.resources import Resources
from tests.databases import sqlite_only
from tests.process import ROOT, TIMEOUT, Service, running

HERE = Path(__file__).parent
MADE = ROOT / "var" / "clients"
PYTHON = MADE / "venv" / "bin" / "python"
PYTHON_PATH = os.environ | {"PYTHONPATH": str(MADE / "python"), "MYPYPATH": str(MADE / "python")}
PASSWORD = "correct horse battery staple"
NOT_RUN = {"wrong"}  # is refused by type checkers


def programs(suffix: str) -> list[str]:
    return sorted({path.stem for path in HERE.glob(f"*/*{suffix}")} - NOT_RUN)


def done(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT, **options
    )


@pytest.fixture
async def service(environment: dict[str, Any], tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path / "log", **environment | {"WEB_CONCURRENCY": 1}) as service:
        yield service


@pytest.fixture
async def email(program: str, resources: Resources) -> str:
    """The address of an editor's account, unless the program makes its own."""
    email = f"{program}@example.com"
    if program != "account":
        body = UserCreate(email=email, name="Editor", password=PASSWORD)
        await UserService(resources).create(body, Role.EDITOR)
    return email


@pytest.fixture(scope="session")
def typescript() -> Path:
    """The programs, compiled beside the client as its users would have it."""
    folder = MADE / "typescript" / "programs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "typescript", folder)
    tsc = done([folder.parent / "node_modules/.bin/tsc", "--project", folder])
    assert tsc.returncode == 0, tsc.stdout
    return folder / "dist"


@sqlite_only
@pytest.mark.parametrize("program", programs(".py"))
async def test_python_client_does_what_it_says(service: Service, email: str, program: str):
    command: list[str | Path] = [
        PYTHON,
        HERE / "python" / f"{program}.py",
        service.url,
        email,
        PASSWORD,
    ]

    ended = await asyncio.to_thread(done, command, env=PYTHON_PATH)

    assert ended.returncode == 0, ended.stderr


@sqlite_only
@pytest.mark.parametrize("program", programs(".ts"))
async def test_typescript_client_does_what_it_says(
    service: Service, email: str, program: str, typescript: Path
):
    command: list[str | Path] = ["node", typescript / f"{program}.js", service.url, email, PASSWORD]

    ended = await asyncio.to_thread(done, command)

    assert ended.returncode == 0, ended.stderr


def test_python_client_has_types_that_find_mistakes(tmp_path: Path):
    mypy: list[str | Path] = [
        PYTHON,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        tmp_path,
    ]

    checked = done([*mypy, *sorted(HERE.glob("python/*.py"))], cwd=tmp_path, env=PYTHON_PATH)

    assert set(re.findall(r"(\w+)\.py:(\d+): error", checked.stdout)) == {
        ("wrong", line) for line in ("9", "11", "12")
    }, checked.stdout


def test_typescript_client_has_types_that_find_mistakes(typescript: Path):
    """`@ts-expect-error` is an error itself where there is none."""
    assert (typescript / "wrong.js").exists()
