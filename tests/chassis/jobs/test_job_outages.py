"""A thousand registrations while everything that they need goes and comes back."""

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from aiosmtpd.handlers import Mailbox
from sqlalchemy import func, select

from app.models import User
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import Server, embedded_valkey, private_mariadb
from chassis.jobs.model import OutboxEntry
from tests.conftest import VAR, migrate
from tests.job_process import job_worker
from tests.mail import mail_server, read_mail
from tests.process import running, wait_until

pytestmark = pytest.mark.drill

REGISTRATIONS = 1000
CLIENTS = 16
PATIENCE = 90  # s; until every job is done


@dataclass
class Place:
    folder: Path
    valkey: Server
    mariadb: Server
    mail: str

    @property
    def variables(self) -> dict[str, Any]:
        return {
            "DATABASE_URL": self.mariadb.url,
            "DATABASE_POOL_SIZE": 5,
            "REDIS_URL": self.valkey.url,
            "MAIL_URL": self.mail,
            "CACHE_NAMESPACE": f"test-{secrets.token_hex(4)}",
            "LIMITS_ENABLED": False,
            "WEB_CONCURRENCY": 2,
            "PASSWORDS_TIME_COST": 1,
            "PASSWORDS_MEMORY_COST": 8,
            "JOBS_BACKOFF": 0.5,
            "JOBS_TIMEOUT": 2,
        }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Servers of its own, as they are killed."""
    with (
        embedded_valkey(tmp_path / "valkey") as valkey,
        private_mariadb(tmp_path / "mariadb", VAR, say=print) as mariadb,
        mail_server(Mailbox(tmp_path / "maildir")) as mail,
    ):
        asyncio.run(migrate(mariadb.url))
        yield Place(tmp_path, valkey, mariadb, mail)


@dataclass
class Registrations:
    """Every other client sends again what failed; the others leave it at that."""

    url: str
    made: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)

    async def run(self) -> None:
        numbers = iter(range(REGISTRATIONS))
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=20) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(CLIENTS):
                tasks.create_task(self._register(client, numbers))

    async def _register(self, client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            email = f"reader-{number}@example.com"
            while not await self._try(client, email) and number % 2:
                await asyncio.sleep(0.1)

    async def _try(self, client: httpx.AsyncClient, email: str) -> bool:
        body = {"email": email, "name": email, "password": "a long password"}
        try:
            response = await client.post("/v1/users", json=body, headers={"Idempotency-Key": email})
        except httpx.TransportError:
            self.failed.add(email)
            return False
        self.statuses[response.status_code] += 1
        is_made = response.status_code == 201
        (self.made if is_made else self.failed).add(email)
        return is_made

    async def until(self, share: float) -> None:
        goal = share * REGISTRATIONS
        await wait_until(lambda: len(self.made | self.failed) >= goal, f"{goal} registrations")


async def test_who_was_told_to_have_an_account_has_one_and_a_welcome(place: Place):
    variables = place.variables
    killed = place.folder / "killed.log"
    async with (
        running(place.folder / "log", **variables) as service,
        job_worker(place.folder / "worker.log", **variables),
    ):
        registrations = Registrations(service.url)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registrations.run())
            for share in (0.1, 0.3):
                async with job_worker(killed, **variables) as worker:
                    await registrations.until(share)
                    worker.process.kill()
            await restart(place.valkey, signal.SIGKILL)
            await registrations.until(0.6)
            await restart(place.mariadb, signal.SIGTERM)
        await until_done(place.mariadb.url)

    users = await emails(place.mariadb.url)
    mails = Counter(mail["To"] for mail in read_mail(place.folder / "maildir"))
    retried = {f"reader-{number}@example.com" for number in range(1, REGISTRATIONS, 2)}
    assert registrations.statuses.keys() <= {201, 409, 503}, registrations.statuses
    assert registrations.failed  # else nothing was in the way
    assert len(registrations.made | registrations.failed) == REGISTRATIONS
    assert registrations.made >= retried
    assert max(users.values()) == 1
    assert users.keys() >= registrations.made
    assert mails.keys() == users.keys()
    assert sum(mails.values()) < 1.1 * len(mails)


async def restart(server: Server, number: signal.Signals) -> None:
    """Away for long enough that many ask in vain."""
    assert server.process is not None
    server.process.send_signal(number)
    await asyncio.to_thread(server.process.wait)
    await asyncio.sleep(0.5)
    server.start()


async def until_done(url: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await scalar(url, select(func.count()).select_from(OutboxEntry)):
            await asyncio.sleep(0.5)


async def emails(url: str) -> Counter[str]:
    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    async with engine.connect() as connection:
        found = Counter(await connection.scalars(select(User.email)))
    await engine.dispose()
    return found


async def scalar(url: str, statement: object) -> int:
    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    async with engine.connect() as connection:
        found: int = await connection.scalar(statement)  # type: ignore[call-overload]
    await engine.dispose()
    return found
