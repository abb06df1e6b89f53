"""Prepares servers, a catalogue and accounts, starts the service, and lets locust load it.

SOAK says for how many minutes the last stage lasts; QUICK=1 takes half a minute.
"""

import asyncio
import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings
from benchmarks.comparison.cpus import ALL
from benchmarks.comparison.routes import searches
from benchmarks.comparison.stage import VAR, Stage, prepared
from benchmarks.covers import cover
from benchmarks.service import ROOT
from chassis.development.private_servers import ServerUnavailable
from chassis.resources import open_resources
from chassis.settings.cpus import available_cpus

FOLDER = VAR / "load"
LOCUST = FOLDER / "venv" / "bin" / "locust"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
BOOKS = 10_000
READERS = 20
PASSWORD = "a long password"  # noqa: S105
EDITOR = "editor@example.com"
# All users come from one address, which has limits of its own.
MANY = {
    f"LIMITS_{name}_{part}": "1000000"
    for name in ("WRITES", "LOGIN", "ACCOUNT")
    for part in ("RATE", "BURST")
}


def stages() -> list[tuple[str, float, int]]:
    """Name, s, users."""
    if os.environ.get("QUICK"):
        return [("steady", 10, 10), ("spike", 5, 40), ("soak", 10, 15)]
    soak = 60 * float(os.environ.get("SOAK") or 3)
    return [("steady", 60, 40), ("spike", 30, 160), ("recovery", 30, 40), ("soak", soak, 60)]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        with prepared(BOOKS) as stage:
            emails = [f"reader{number}@example.com" for number in range(READERS)]
            asyncio.run(add_accounts(stage.variables, emails))
            workers = {"WEB_CONCURRENCY": str(available_cpus())}
            with stage.running("ours", cpus=ALL, **workers, **MANY) as service:
                code = run_locust(service.url, stage, emails)
    except ServerUnavailable as error:
        raise SystemExit(str(error)) from None
    print(f"Open {(FOLDER / 'report.html').relative_to(ROOT)} in a browser")
    raise SystemExit(code)


async def add_accounts(variables: dict[str, str], emails: list[str]) -> None:
    groups: Any = {
        "database": {"url": variables["DATABASE_URL"]},
        "redis": {"url": variables["REDIS_URL"]},
    }
    logging.getLogger("app.security").setLevel(logging.WARNING)  # each registration is an event
    async with open_resources(Settings(_env_file=None, **groups)) as resources:
        service = UserService(resources)
        for email in [*emails, EDITOR]:
            user = UserCreate(email=email, name="Somebody", password=PASSWORD)
            await service.create(user, Role.EDITOR if email == EDITOR else Role.READER)


def run_locust(url: str, stage: Stage, emails: list[str]) -> int:
    picture = FOLDER / "cover.jpg"
    picture.write_bytes(cover())
    load = {
        "books": [book.id for book in stage.books],
        "searches": searches(stage.books),
        "emails": emails,
        "editor": EDITOR,
        "password": PASSWORD,
        "stages": stages(),
        "cover": str(picture),
    }
    command = [str(LOCUST), "--locustfile", str(LOCUSTFILE), "--headless", "--host", url]
    command += ["--only-summary", "--html", str(FOLDER / "report.html")]
    file = FOLDER / "load.json"
    file.write_text(json.dumps(load))
    environment = os.environ | {"LOAD": str(file)}
    return subprocess.run(command, env=environment, cwd=FOLDER, check=False).returncode


if __name__ == "__main__":
    main()
