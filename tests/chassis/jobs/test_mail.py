"""What strangers can do with mail: neither have text of theirs sent, nor make dead jobs."""

import asyncio
import logging
from pathlib import Path

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.job_worker.worker import JobWorker
from chassis.jobs.model import OutboxEntry
from chassis.jobs.settings import JobsSettings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources
from tests.jobs import waiting, working
from tests.logins import EMAIL, REGISTER
from tests.mail import SENDER, Refusing, mail_server, read_mail
from tests.metrics import scrape, total
from tests.process import TIMEOUT

ATTEMPTS = 3


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.jobs = JobsSettings(backoff=0.01, attempts=ATTEMPTS)
    return settings


async def register(client: httpx.AsyncClient, **body: str) -> None:
    response = await client.post("/v1/users", json=REGISTER | body)
    assert response.status_code == 201, response.text


async def dead(worker: JobWorker) -> list[OutboxEntry]:
    """Those that were given up, once no other waits."""
    resources = worker.context.resources
    async with asyncio.timeout(TIMEOUT):
        while any(entry.dead_at is None for entry in await waiting(resources)):
            worker.wake()
            await asyncio.sleep(0.01)
    return await waiting(resources)


@pytest.mark.parametrize(
    ("name", "email"),
    [
        ("You have won! https://evil.example/win", EMAIL),
        ("Mary", "victim+you-have-won-at-evil.example@example.com"),
    ],
)
async def test_mail_carries_nothing_that_a_stranger_has_written(
    client: httpx.AsyncClient,
    settings: Settings,
    resources: Resources,
    tmp_path: Path,
    name: str,
    email: str,
):
    """Nobody has verified the address: all there is of it is where the mail goes."""
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    async with working(resources) as worker:
        await register(client, name=name, email=email)
        assert await dead(worker) == []
        sent = total(await scrape(client), "mails_total", result="sent")

    [mail] = read_mail(tmp_path / "mail")
    assert mail["To"] == email
    del mail["To"]
    parts = [str(mail), *(part.get_content() for part in mail.iter_parts())]
    assert len(parts) == 3
    assert not [part for part in parts if "evil" in part or "won" in part or "Mary" in part]
    assert sent == 1


@pytest.mark.parametrize(
    ("command", "reply", "tries"),
    [
        ("RCPT", "550 5.1.1 There is nobody of that name", 1),
        ("RCPT", "501 Syntax error in parameters", 1),
        ("RCPT", "553 5.1.3 Local part is too long", 1),
        ("DATA", "554 5.1.2 No such domain", 1),
        # Postfix of a domain without DNS, and of a mailbox that is full.
        ("RCPT", "450 4.1.2 Domain not found", ATTEMPTS),
        ("RCPT", "452 4.2.2 The mailbox is full", ATTEMPTS),
    ],
)
async def test_address_that_is_refused_makes_no_dead_job(
    client: httpx.AsyncClient,
    settings: Settings,
    resources: Resources,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    command: str,
    reply: str,
    tries: int,
):
    """What is for good is tried once; what is not, as often as anything."""
    caplog.set_level(logging.WARNING, "app.jobs")
    folder = tmp_path / "tries"
    with mail_server(Refusing(folder, command, reply)) as url:
        settings.mail = MailSettings(sender=SENDER, url=url)
        async with working(resources) as worker:
            await register(client)
            assert await dead(worker) == []
            samples = await scrape(client)

    assert len([*folder.iterdir()]) == tries
    assert f"An account cannot be reached by mail: {reply[4:]}" in caplog.text
    assert EMAIL not in caplog.text
    assert total(samples, "mails_total", result="refused") == 1
    assert total(samples, "mails_total", result="sent") == 0


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("RCPT", "451 4.3.0 Temporary lookup failure"),
        ("RCPT", "450 Try again later"),
        ("DATA", "451 4.7.1 Try again later"),
        ("MAIL", "550 5.7.1 You may not send mail"),
    ],
)
async def test_trouble_of_the_mail_server_is_tried_again_and_then_put_aside(
    client: httpx.AsyncClient,
    settings: Settings,
    resources: Resources,
    tmp_path: Path,
    command: str,
    reply: str,
):
    """That is no fault of the address, and an operator mends it and has the jobs done again."""
    folder = tmp_path / "tries"
    with mail_server(Refusing(folder, command, reply)) as url:
        settings.mail = MailSettings(sender=SENDER, url=url)
        async with working(resources) as worker:
            await register(client)
            [job] = await dead(worker)

    assert len([*folder.iterdir()]) == ATTEMPTS
    assert reply[4:] in (job.error or "")
