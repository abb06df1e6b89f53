"""`python -m app work` in a process of its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.process import ROOT, TIMEOUT, Service, wait_until


@asynccontextmanager
async def job_worker(output: Path, **variables: Any) -> AsyncIterator[Service]:
    """Stopped in the end, unless it was killed before."""
    environment = os.environ | {"LOG_FORMAT": "json"}
    environment |= {name: str(value) for name, value in variables.items()}
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "work"],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, "", output)
    try:
        await wait_until(
            lambda: process.poll() is not None or bool(service.messages("Job worker started")),
            "the job worker",
        )
        assert process.poll() is None, output.read_text()
        yield service
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, TIMEOUT)
