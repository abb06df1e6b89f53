"""`python -m app` in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.process import ROOT, TIMEOUT


def start(folder: Path, *arguments: Any, **variables: Any) -> subprocess.Popen[str]:
    """In `folder`, where no `.env` of a developer is read; wide enough for every table."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    environment |= {"ENVIRONMENT": "development"}
    environment |= {name: str(value) for name, value in variables.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "app", *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, output and errors."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, output, errors


def run(folder: Path, *arguments: Any, **variables: Any) -> tuple[int, str, str]:
    return finish(start(folder, *arguments, **variables))
