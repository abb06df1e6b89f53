"""The service and its job worker, as processes that `python -m app serve` watches over."""

import multiprocessing
import os
import runpy
import shlex
import sys
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import typer

from app.servers.process import end_with_parent
from app.settings import Settings

ROOT = Path(__file__).parent.parent
RESTART = 1  # s; before a job worker is started again
MAX_WORKERS = 4  # unless WEB_CONCURRENCY says more: a private MariaDB takes their connections


def gunicorn(settings: Settings) -> list[str]:
    if "concurrency" not in settings.web.model_fields_set:
        os.environ["WEB_CONCURRENCY"] = str(min(settings.web.concurrency, MAX_WORKERS))
    return ["gunicorn", "--config", str(ROOT / "gunicorn_config.py")]


def uvicorn(settings: Settings) -> list[str]:
    return [
        *("uvicorn", "app.main:create_app", "--factory", "--no-access-log"),
        *("--reload", "--reload-dir", str(ROOT / "app")),
        *("--host", settings.bind, "--port", str(settings.port)),
        *("--timeout-keep-alive", str(settings.web.keepalive)),
        *("--timeout-graceful-shutdown", "5"),
    ]


def job_worker(reload: bool) -> list[str]:
    command = ["app", "work", "--schedule"]
    if reload:
        again = shlex.join([sys.executable, "-m", *command])
        return ["watchfiles", "--filter", "python", "--sigint-timeout", "30", again, "app"]
    return command


def run(command: list[str], job_worker: list[str] | None) -> int:
    """Until the service ends; a job worker that ends before it is started again."""
    service = _fork(command)
    worker = _fork(job_worker) if job_worker else None
    try:
        while worker and job_worker and service.is_alive():
            wait([service.sentinel, worker.sentinel])
            if service.is_alive():
                worker.join()
                typer.echo(f"The job worker ended with {worker.exitcode}; another one starts")
                service.join(RESTART)
                worker = _fork(job_worker)
        service.join()
    except KeyboardInterrupt:
        typer.echo("Stopping ...")
    finally:
        processes = [service, worker] if worker else [service]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    return service.exitcode or 0


def _fork(command: list[str]) -> BaseProcess:
    # Forked: it finds our modules imported, which is half of what it takes to start.
    process = multiprocessing.get_context("fork").Process(target=_become, args=(command,))
    process.start()
    return process


def _become(command: list[str]) -> None:
    os.setsid()  # Ctrl-C reaches only our parent, which stops us as a supervisor would
    end_with_parent()
    os.chdir(ROOT)
    # As multiprocessing leaves it, it has a number that uvicorn's reloader takes for another file.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
