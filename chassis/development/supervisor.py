"""The processes of `python -m app serve`: the service and a job worker."""

import multiprocessing
import os
import runpy
import shlex
import sys
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import typer

from chassis.processes.parent_death import end_with_parent
from chassis.service_settings import ChassisSettings

ROOT = Path(__file__).parent.parent.parent
CHASSIS = "chassis"
RESTART_DELAY = 1  # s; of a job worker
MAX_WORKERS = 4  # if WEB_CONCURRENCY is not set; a private MariaDB has connections for these


def gunicorn(settings: ChassisSettings) -> list[str]:
    if "concurrency" not in settings.web.model_fields_set:
        os.environ["WEB_CONCURRENCY"] = str(min(settings.web.concurrency, MAX_WORKERS))
    return ["gunicorn", "--config", str(ROOT / "gunicorn_config.py")]


def uvicorn(package: str, settings: ChassisSettings) -> list[str]:
    return [
        *("uvicorn", f"{package}.main:create_app", "--factory", "--no-access-log"),
        *("--reload", "--reload-dir", str(ROOT / package), "--reload-dir", str(ROOT / CHASSIS)),
        *("--host", settings.bind, "--port", str(settings.port)),
        *("--timeout-keep-alive", str(settings.web.keepalive)),
        *("--timeout-graceful-shutdown", "5"),
    ]


def job_worker(package: str, reload: bool) -> list[str]:
    command = [package, "work"]
    if reload:
        again = shlex.join([sys.executable, "-m", *command])
        options = ["--filter", "python", "--sigint-timeout", "30"]
        return ["watchfiles", *options, again, package, CHASSIS]
    return command


def run(command: list[str], job_worker: list[str] | None) -> int:
    """Run until the service ends; a job worker that ends earlier is started again."""
    service = _fork(command)
    worker = _fork(job_worker) if job_worker else None
    try:
        while worker and job_worker and service.is_alive():
            wait([service.sentinel, worker.sentinel])
            if service.is_alive():
                worker.join()
                typer.echo(f"The job worker ended with {worker.exitcode}; another one starts")
                service.join(RESTART_DELAY)
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
    # Forked, as importing the modules again is half of the time of a start.
    process = multiprocessing.get_context("fork").Process(target=_become, args=(command,))
    process.start()
    return process


def _become(command: list[str]) -> None:
    os.setsid()  # Ctrl-C reaches only the parent, which then sends SIGTERM
    end_with_parent()
    os.chdir(ROOT)
    # As multiprocessing leaves it, it has a number that uvicorn's reloader takes for another file.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
