"""`python -m app` in a process of its own."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.cli import app, console
from tests.process import ROOT, TIMEOUT

WIDTH = 300  # columns: enough for every table


def run(
    folder: Path, *arguments: Any, text: str | bytes = "", **variables: Any
) -> tuple[int, str, str]:
    """Its exit code, output and errors. `text` is its input.

    In `folder`, where no `.env` of a developer is read.
    """
    environment = _environment(variables)
    with TemporaryDirectory() as files:
        streams = [Path(files) / name for name in ("input", "output", "errors")]
        streams[0].write_bytes(text.encode() if isinstance(text, str) else text)
        words = [str(argument) for argument in arguments]
        process = _fork_server().Process(
            target=_command, args=(folder, streams, words, environment)
        )
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{' '.join(words)} took more than {TIMEOUT} s")
        code = process.exitcode
        process.close()
        output, errors = (stream.read_text("utf-8") for stream in streams[1:])
        return code, output, errors


def _command(
    folder: Path, streams: Sequence[Path], arguments: list[str], environment: Mapping[str, str]
) -> None:
    """What `python -m app` does once it has imported the service."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(os.open(stream, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    console.width = WIDTH  # of the variable COLUMNS, which was read when it was imported
    app(arguments, prog_name="python -m app")


@cache
def _fork_server() -> ForkServerContext:
    """A process that has imported the service, which is most of the work of a command.

    Each command is forked from it: the process of the tests has threads, which a fork loses.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["app.development.commands", "app.commands.accounts", "alembic.command", "tests.command"]
    )
    with chdir(ROOT):  # where Python 3.11 looks for them
        forkserver.ensure_running()
    return context


def start(folder: Path, *arguments: Any, **variables: Any) -> subprocess.Popen[str]:
    """From the very start; the source is that of `folder` if there is an `app` in it."""
    return subprocess.Popen(
        [sys.executable, "-m", "app", *map(str, arguments)],
        cwd=folder,
        env=_environment(variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str], text: str = "") -> tuple[int, str, str]:
    """Its exit code, output and errors."""
    try:
        output, errors = process.communicate(text, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, output, errors


def _environment(variables: Mapping[str, Any]) -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH)}
    environment |= {"ENVIRONMENT": "development"}
    return environment | {name: str(value) for name, value in variables.items()}
