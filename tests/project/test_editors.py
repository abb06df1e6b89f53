"""What editors are told to start exists."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from app.development import commands
from tests.process import ROOT

FILES = sorted([*(ROOT / ".vscode").glob("*.json"), *(ROOT / ".devcontainer").glob("*.json")])
TARGETS = set(re.findall(r"^([a-z./-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text("utf-8"))


def made(command: str) -> set[str]:
    """The targets that a command asks `make` for."""
    words = [part.split()[1:] for part in command.split("&&") if part.split()[0] == "make"]
    return {word for one in words for word in one if "=" not in word}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_is_json(file: Path):
    assert json.loads(file.read_text("utf-8"))


def test_configurations_start_what_exists():
    launch, tasks = read(".vscode/launch.json"), read(".vscode/tasks.json")
    started = [one for one in launch["configurations"] if one["request"] == "launch"]
    options = {
        name: {option for parameter in command.params for option in
               (*parameter.opts, *parameter.secondary_opts)}
        for name, command in typer.main.get_command(commands.app).commands.items()  # type: ignore[attr-defined]
    }  # fmt: skip

    assert [one["module"] for one in started] == ["app", "pytest"]
    assert all(find_spec(one["module"]) for one in started)
    command, *arguments = started[0]["args"]
    assert set(arguments) <= options[command]
    labels = {task["label"] for task in tasks["tasks"]}
    assert {one["preLaunchTask"] for one in started} <= labels


def test_debugger_is_where_compose_publishes_it():
    [attach] = [
        one for one in read(".vscode/launch.json")["configurations"] if one["request"] == "attach"
    ]
    compose = (ROOT / "docker-compose.override.yml").read_text()
    dockerfile = (ROOT / "docker/Dockerfile").read_text()

    assert f"127.0.0.1:${{DEBUGGER_PORT:-{attach['connect']['port']}}}:" in compose
    assert f"\nWORKDIR {attach['pathMappings'][0]['remoteRoot']}\n" in dockerfile
    assert "debugpy" in (ROOT / "requirements-debug.in").read_text()


def test_tasks_are_targets_of_the_makefile():
    tasks = read(".vscode/tasks.json")
    commands = [task["command"] for task in tasks["tasks"]]
    asked = set(re.findall(r"\$\{input:(\w+)\}", "".join(commands)))

    assert all(made(command) for command in commands)
    assert set().union(*map(made, commands)) <= TARGETS
    assert asked == {one["id"] for one in tasks["inputs"]}


def test_container_is_that_of_gitlab_and_installs_by_make():
    container = read(".devcontainer/devcontainer.json")

    assert f"image: {container['image']}" in (ROOT / ".gitlab-ci.yml").read_text()
    assert made(container["postCreateCommand"]) == {".venv/dev"}
    assert made(container["postCreateCommand"]) <= TARGETS
    recommended = read(".vscode/extensions.json")["recommendations"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
