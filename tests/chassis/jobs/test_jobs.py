"""Jobs: written with their cause, done by a worker, tried again, put aside, never lost."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from aiosmtpd.handlers import Mailbox
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from sqlalchemy import func, select, update

from app.about import NAME, TITLE
from app.jobs import REGISTRY, clean
from app.models import RefreshToken, User, UserSession
from app.schemas.user import UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings
from chassis.clock import now
from chassis.database.metrics import DatabaseMetrics
from chassis.development.private_servers import embedded_valkey
from chassis.idempotency.model import IdempotencyRecord
from chassis.job_worker import worker as job_worker_module
from chassis.job_worker.registry import Handler, JobContext, Registry
from chassis.job_worker.worker import JobWorker
from chassis.jobs import outbox as outbox_module
from chassis.jobs.job import Job
from chassis.jobs.metrics import JobMetrics
from chassis.jobs.model import OutboxEntry
from chassis.jobs.settings import JobsSettings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources, open_resources
from chassis.tasks.background import run_alongside
from tests.command import run
from tests.databases import mariadb_only
from tests.job_process import job_worker
from tests.jobs import job_context, job_store, listeners_of, working
from tests.mail import SENDER, mail_server, read_mail
from tests.metrics import scrape, total
from tests.process import TIMEOUT, free_port, wait_until

MARY = {"email": "mary@example.com", "name": "Märy <i>", "password": "frankenstein"}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.mail = MailSettings(sender=SENDER, url=f"file://{tmp_path}/mail")
    settings.jobs = JobsSettings(backoff=0.01, attempts=3, graceful_timeout=0.2)
    return settings


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not await condition():
            await asyncio.sleep(0.01)


async def entries(resources: Resources) -> list[OutboxEntry]:
    async with resources["sessions"].current() as session:
        return list(await session.scalars(select(OutboxEntry).order_by(OutboxEntry.id)))


async def empty(resources: Resources) -> None:
    async def is_empty() -> bool:
        return not await entries(resources)

    await until(is_empty)


async def make_due(resources: Resources) -> None:
    """As if the time had passed."""
    async with resources["sessions"].write.begin() as session:
        await session.execute(update(OutboxEntry).values(due_at=now() - timedelta(seconds=1)))


async def register(client: httpx.AsyncClient, status: int = 201) -> None:
    response = await client.post("/v1/users", json=MARY)
    assert response.status_code == status, response.text


async def test_who_registers_gets_a_welcome(
    client: httpx.AsyncClient, resources: Resources, tmp_path: Path
):
    async with working(resources):
        await register(client)
        await empty(resources)

    [mail] = read_mail(tmp_path / "mail")
    text, html = mail.iter_parts()
    assert (mail["To"], mail["Subject"]) == (MARY["email"], f"Welcome to {TITLE}")
    assert mail["From"] == f"{TITLE} <{NAME}@example.com>"
    assert [part.get_content_type() for part in (text, html)] == ["text/plain", "text/html"]
    for part in (text, html):
        assert "account has been created" in part.get_content()


async def test_mail_reaches_a_real_server(
    client: httpx.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(Mailbox(tmp_path / "maildir")) as url:
        settings.mail = MailSettings(sender=SENDER, url=url)
        async with working(resources):
            await register(client)
            await empty(resources)

    [mail] = read_mail(tmp_path / "maildir")
    body = mail.get_body(("plain",))
    assert (mail["To"], mail["X-RcptTo"]) == ("mary@example.com", "mary@example.com")
    assert body is not None
    assert "account has been created" in body.get_content()


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize(
    ("email", "recipient"),
    [
        ("a@b\u00fccher.example", "a@xn--bcher-kva.example"),
        ("jos\u00e9@b\u00fccher.example", "jos\u00e9@xn--bcher-kva.example"),
        ("o'brien+x@example.com", "o'brien+x@example.com"),
    ],
)
async def test_mail_goes_to_any_address_that_the_server_can_take(
    client: httpx.AsyncClient,
    settings: Settings,
    resources: Resources,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    email: str,
    recipient: str,
    smtputf8: bool,
):
    """Without SMTPUTF8, a name that is not ASCII is undeliverable: trying again would not help."""
    caplog.set_level(logging.WARNING, "app.jobs")
    with mail_server(Mailbox(tmp_path / "maildir"), smtputf8=smtputf8) as url:
        settings.mail = MailSettings(sender=SENDER, url=url)
        async with working(resources) as worker:
            made = await client.post("/v1/users", json=MARY | {"email": email})
            assert made.status_code == 201
            await empty(resources)
            backlog = await worker.store.backlog()

    assert backlog.dead == 0
    mails = read_mail(tmp_path / "maildir")
    if not smtputf8 and not recipient.isascii():
        assert mails == []
        assert "cannot be reached by mail: An address containing non-ASCII" in caplog.text
        return
    [mail] = mails
    assert (mail["To"], mail["X-RcptTo"]) == (recipient, recipient)
    assert "cannot be reached" not in caplog.text


async def test_domain_of_the_sender_goes_out_as_dns_has_it(
    client: httpx.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(Mailbox(tmp_path / "maildir")) as url:
        sender = "B\u00fccher Inc. <shop@b\u00fccher.example>"
        settings.mail = MailSettings(url=url, sender=sender)
        async with working(resources):
            await register(client)
            await empty(resources)

    [mail] = read_mail(tmp_path / "maildir")
    assert mail["X-MailFrom"] == "shop@xn--bcher-kva.example"
    assert mail["From"].addresses[0].display_name == "B\u00fccher Inc."
    assert mail["From"].addresses[0].addr_spec == "shop@xn--bcher-kva.example"
    assert mail["Message-ID"].endswith("@xn--bcher-kva.example>")


async def test_mail_to_an_address_that_is_not_ascii_is_a_file_that_can_be_read(
    client: httpx.AsyncClient, resources: Resources, tmp_path: Path
):
    async with working(resources):
        body = MARY | {"email": "jos\u00e9@b\u00fccher.example"}
        assert (await client.post("/v1/users", json=body)).status_code == 201
        await empty(resources)

    [file] = (tmp_path / "mail").iterdir()
    [mail] = read_mail(tmp_path / "mail")
    assert mail["To"] == "jos\u00e9@xn--bcher-kva.example"
    # In UTF-8 (RFC 6532): an encoded word is no part of an address.
    assert "\r\nTo: jos\u00e9@xn--bcher-kva.example\r\n" in file.read_bytes().decode()


async def test_password_is_not_sent_to_a_server_without_tls(
    client: httpx.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(Mailbox(tmp_path / "maildir")) as url:
        with_user = url.replace("//", "//me@")
        settings.mail = MailSettings(sender=SENDER, url=with_user, password="secret")
        async with working(resources) as worker:
            await register(client)
            [dead] = await until_dead(worker)

    assert "STARTTLS" in (dead.error or "")
    assert read_mail(tmp_path / "maildir") == []


async def until_dead(worker: JobWorker) -> list[OutboxEntry]:
    async def is_dead() -> list[OutboxEntry]:
        worker.wake()  # it would look within a second
        return await worker.store.dead()

    await until(is_dead)
    return await worker.store.dead()


async def test_what_is_refused_leaves_no_job(client: httpx.AsyncClient, resources: Resources):
    await register(client)
    await register(client, 409)

    assert [entry.key for entry in await entries(resources)] == [f"welcome-{await user_id(client)}"]


async def user_id(client: httpx.AsyncClient) -> int:
    form = {"grant_type": "password", "username": MARY["email"], "password": MARY["password"]}
    token = (await client.post("/v1/tokens", data=form)).json()["access_token"]
    me = await client.get("/v1/users/me", headers={"Authorization": f"Bearer {token}"})
    found: int = me.json()["id"]
    return found


class Note(Job):
    name = "note"

    number: int


async def write_notes(resources: Resources, numbers: range) -> None:
    for number in numbers:
        async with resources["sessions"].write() as session:
            await resources["outbox"].write(session, Note(number=number), f"note-{number}")
            await session.commit()


def noting(noted: list[int]) -> Registry:
    async def note(context: JobContext, job: Note, key: str) -> None:
        noted.append(job.number)

    handlers: dict[type[Job], Handler] = {Note: note}
    return Registry(handlers, {}, REGISTRY.templates)


async def test_each_job_is_run_once_by_however_many_workers(resources: Resources):
    """While others write: no claim waits for a lock, and the database ends no deadlock."""
    noted: list[int] = []
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(working(resources, noting(noted)))
        await asyncio.gather(*(write_notes(resources, range(n, n + 40)) for n in (0, 100, 200)))
        await empty(resources)
    deadlocks = resources["metrics"].of(DatabaseMetrics).deadlocks._value.get()

    assert sorted(noted) == [*range(40), *range(100, 140), *range(200, 240)]
    assert deadlocks == 0


async def test_commit_wakes_an_idle_worker(resources: Resources, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_worker_module, "POLL", 3600)
    noted: list[int] = []
    async with working(resources, noting(noted)):
        await write_notes(resources, range(1))
        await empty(resources)

    assert noted == [0]


async def test_reply_to_a_ping_wakes_no_worker(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox_module, "PING_EVERY", 0.01)
    pings = asyncio.Semaphore(0)
    ping = PubSub.ping

    async def counted(messages: PubSub) -> None:
        await ping(messages)
        pings.release()

    monkeypatch.setattr(PubSub, "ping", counted)
    woken: list[None] = []
    outbox = resources["outbox"]
    async with asyncio.timeout(TIMEOUT), run_alongside(outbox.listen(lambda: woken.append(None))):
        for _ in range(3):  # before the third, the reply to the first has been read
            await pings.acquire()

    assert woken == []


async def test_worker_with_more_jobs_than_slots_asks_again_at_once(
    settings: Settings, resources: Resources, monkeypatch: pytest.MonkeyPatch
):
    """In order of time; nothing wakes it but its own jobs."""
    monkeypatch.setattr(job_worker_module, "POLL", 3600)
    settings.jobs.concurrency = 1
    await write_notes(resources, range(10))
    noted: list[int] = []
    async with working(resources, noting(noted)):
        await empty(resources)

    assert noted == [*range(10)]


async def test_jobs_are_done_while_redis_is_away(settings: Settings, tmp_path: Path):
    with embedded_valkey(tmp_path / "valkey") as valkey:
        settings.jobs.url = JobsSettings(url=valkey.url).url
        async with open_resources(settings) as resources, working(resources):
            valkey.stop()
            user = await UserService(resources).create(UserCreate.model_validate(MARY))
            await empty(resources)
            valkey.start()

    assert [mail["To"] for mail in read_mail(tmp_path / "mail")] == [user.email]


@mariadb_only
async def test_job_that_fails_is_tried_again_then_put_aside_until_somebody_looks(
    client: httpx.AsyncClient,
    settings: Settings,
    resources: Resources,
    environment: dict[str, Any],
    tmp_path: Path,
):
    mail, settings.mail = settings.mail, MailSettings(sender=SENDER)
    async with working(resources) as worker:
        await register(client)
        [dead] = await until_dead(worker)
        backlog = await worker.store.backlog()
        shown = run(tmp_path, "jobs", **environment)
    requeued = run(tmp_path, "jobs", "--requeue", dead.id, **environment)
    again = run(tmp_path, "jobs", "--requeue", dead.id, **environment)
    settings.mail = mail
    async with working(resources):
        await empty(resources)

    assert (dead.attempts, dead.error) == (3, "NoMailServer: MAIL_URL is not set")
    assert (backlog.waiting, backlog.dead) == (0, 1)
    assert "1 jobs are dead" in shown[1]
    assert dead.key in shown[1]
    assert "MAIL_URL is not set" in shown[1]
    assert requeued[:2] == (0, "1 jobs will be tried again\n" + requeued[1].split("\n", 1)[1])
    assert again == (1, "", "There is no such dead job\n")
    assert len(read_mail(tmp_path / "mail")) == 1
    counted = {
        sample.labels["result"]: sample.value
        for family in resources["metrics"].registry.collect()
        for sample in family.samples
        if sample.name == "job_duration_seconds_count" and sample.labels["name"] == "send_welcome"
    }
    assert counted == {"failed": 2, "dead": 1, "done": 1}


@mariadb_only
async def test_dead_job_can_be_forgotten(
    client: httpx.AsyncClient,
    resources: Resources,
    environment: dict[str, Any],
    tmp_path: Path,
):
    await register(client)
    [entry] = await entries(resources)
    store = job_store(resources)
    alive = await store.discard(entry.id)
    for _ in range(3):
        await make_due(resources)
        [claimed] = await store.claim(10)
        await store.fail(claimed, "[/markup] is not")
    shown = run(tmp_path, "jobs", **environment)
    forgotten = run(tmp_path, "jobs", "--discard", entry.id, **environment)

    assert alive == 0
    assert "[/markup] is not" in shown[1]
    assert forgotten[:1] == (0,)
    assert await entries(resources) == []


async def test_wait_before_another_attempt_doubles(resources: Resources, settings: Settings):
    settings.jobs = JobsSettings(backoff=10, attempts=30)
    await UserService(resources).create(UserCreate.model_validate(MARY))
    waits = []
    store = job_store(resources)
    for _ in range(12):
        await make_due(resources)
        [claimed] = await store.claim(10)
        before = now()
        await store.fail(claimed, "no")
        [entry] = await entries(resources)
        waits.append((entry.due_at - before).total_seconds())

    expected = [min(3600, 10 * 2**attempt) for attempt in range(12)]
    ratios = [wait / usual for wait, usual in zip(waits, expected, strict=True)]
    assert all(0.5 <= ratio < 1.6 for ratio in ratios), waits
    assert len({round(ratio, 3) for ratio in ratios}) > 6  # jitter


async def test_job_of_a_worker_that_died_is_done_by_another(
    client: httpx.AsyncClient, resources: Resources, tmp_path: Path
):
    await register(client)
    assert len(await job_store(resources).claim(10)) == 1  # by one that died
    during_its_lease = await job_store(resources).claim(10)
    await make_due(resources)
    async with working(resources):
        await empty(resources)

    assert during_its_lease == []
    assert len(read_mail(tmp_path / "mail")) == 1


async def test_job_that_kills_its_workers_is_put_aside(
    client: httpx.AsyncClient, resources: Resources
):
    await register(client)
    store = job_store(resources)
    for _ in range(3):
        assert len(await store.claim(10)) == 1
        await make_due(resources)
    after = await store.claim(10)
    [dead] = await store.dead()

    assert after == []
    assert dead.error == "The worker that did it was lost"


async def test_rows_that_are_given_up_take_no_slot(resources: Resources):
    """A worker that finds nothing but them would else wait a second for the jobs behind them."""
    await write_notes(resources, range(5))
    async with resources["sessions"].write.begin() as session:
        lost = OutboxEntry.key.in_([f"note-{number}" for number in range(3)])
        of_dead_workers = {"attempts": 3, "due_at": now() - timedelta(seconds=1)}
        await session.execute(update(OutboxEntry).where(lost).values(of_dead_workers))
    store = job_store(resources)
    claimed = await store.claim(2)

    assert [each.key for each in claimed] == ["note-3", "note-4"]
    assert len(await store.dead()) == 3


@asynccontextmanager
async def silent_server(
    leave: asyncio.Event | None = None,
) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A mail server that lets clients in and says nothing, until `leave`; and whether one came."""
    came = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await (reader.read() if leave is None else leave.wait())
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", came


async def test_worker_that_stops_hands_back_what_it_cannot_finish(
    client: httpx.AsyncClient, settings: Settings, resources: Resources
):
    async with silent_server() as (url, came):
        settings.mail = MailSettings(sender=SENDER, url=url)
        async with working(resources):
            await register(client)
            await came.wait()
        [entry] = await entries(resources)

    assert entry.attempts == 0
    assert entry.due_at <= now()


async def test_job_may_end_after_its_queue_went_and_came_back(
    client: httpx.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    leave = asyncio.Event()
    with embedded_valkey(tmp_path / "valkey") as valkey:
        settings.jobs = JobsSettings(url=valkey.url, graceful_timeout=TIMEOUT)
        async with silent_server(leave) as (url, came), open_resources(settings) as own:
            settings.mail = MailSettings(sender=SENDER, url=url)
            async with working(own):
                await UserService(own).create(UserCreate.model_validate(MARY))
                await came.wait()
                assert valkey.process is not None
                valkey.process.kill()
                valkey.process.wait()
                valkey.start()
                await asyncio.sleep(0.1)  # long enough to notice
                asyncio.get_running_loop().call_later(0.3, leave.set)
    [entry] = await entries(resources)

    assert (entry.attempts, entry.error is None) == (1, False)  # it was not handed back


async def test_job_that_takes_too_long_is_ended(
    client: httpx.AsyncClient, settings: Settings, resources: Resources
):
    settings.jobs = JobsSettings(backoff=0.01, attempts=1, timeout=0.1)
    async with silent_server() as (url, _):
        settings.mail = MailSettings(sender=SENDER, url=url)
        async with working(resources) as worker:
            await register(client)
            [dead] = await until_dead(worker)

    assert dead.error == "TimeoutError: not done within JOBS_TIMEOUT (0.1 s)"


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError, AssertionError])
async def test_error_without_a_text_is_not_said_to_be_the_time_limit(
    settings: Settings, resources: Resources, error: type[BaseException]
):
    settings.jobs = JobsSettings(backoff=0.01, attempts=2)

    async def fail(context: JobContext, job: Note, key: str) -> None:
        raise error

    handlers: dict[type[Job], Handler] = {Note: fail}
    await write_notes(resources, range(1))
    async with working(resources, Registry(handlers, {}, REGISTRY.templates)) as worker:
        [dead] = await until_dead(worker)

    assert (dead.attempts, dead.error) == (2, f"{error.__name__}: ")


async def test_worker_is_woken_again_when_redis_comes_back_empty(
    settings: Settings, tmp_path: Path
):
    with embedded_valkey(tmp_path / "valkey") as valkey:
        settings.jobs.url = JobsSettings(url=valkey.url).url
        async with open_resources(settings) as resources, working(resources):
            assert valkey.process is not None
            valkey.process.kill()
            valkey.process.wait()
            valkey.start()

            async def is_listening() -> bool:
                with suppress(RedisError):
                    return await listeners_of(resources) == 1
                return False

            await until(is_listening)


async def test_periodic_jobs_are_run_once_by_all_workers(resources: Resources):
    metrics = resources["metrics"]

    def runs() -> dict[str, float]:
        return {
            sample.labels["name"]: sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "job_duration_seconds_count"
        }

    async with working(resources, REGISTRY), working(resources, REGISTRY):

        async def has_done_all() -> bool:
            return runs().keys() == {"tick"} | REGISTRY.periodic.keys()

        await until(has_done_all)

    assert set(runs().values()) == {1}
    assert metrics.of(JobMetrics).job_tick._value.get() == pytest.approx(
        now().timestamp(), abs=TIMEOUT
    )


async def test_what_has_expired_is_deleted_and_nothing_else(
    client: httpx.AsyncClient, resources: Resources
):
    key = {"Idempotency-Key": "key"}
    form = {"grant_type": "password", "username": MARY["email"], "password": MARY["password"]}
    await register(client)
    for number in range(2):
        headers = key | {"Idempotency-Key": f"key-{number}"}
        response = await client.post("/v1/tokens", data=form, headers=headers)
        assert response.status_code == 200
    past = now() - timedelta(days=2)
    async with resources["sessions"].write.begin() as session:
        old = await session.scalar(select(UserSession.id).limit(1))
        first = await session.scalar(select(func.min(IdempotencyRecord.digest)))
        await session.execute(
            update(RefreshToken).where(RefreshToken.session_id == old).values(expires_at=past)
        )
        await session.execute(update(UserSession).values(created_at=past))
        await session.execute(
            update(IdempotencyRecord)
            .where(IdempotencyRecord.digest == first)
            .values(expires_at=past)
        )

    await clean(job_context(resources))

    async with resources["sessions"].read() as session:
        counts = [
            await session.scalar(select(func.count()).select_from(model))
            for model in (RefreshToken, UserSession, IdempotencyRecord, User)
        ]
        left = await session.scalar(select(UserSession.id))
    assert counts == [1, 1, 1, 1]
    assert left != old


@mariadb_only
async def test_worker_process_shows_itself_and_stops_when_told(
    environment: dict[str, Any], resources: Resources, tmp_path: Path
):
    port, heartbeat = free_port(), tmp_path / "heartbeat"
    variables = environment | {
        "JOBS_METRICS_PORT": port,
        "JOBS_HEARTBEAT": heartbeat,
        "MAIL_URL": f"file://{tmp_path}/mail",
        "LOG_SLOW_STATEMENT": 60,
    }
    async with job_worker(tmp_path / "log", **variables) as worker:
        await wait_until(heartbeat.exists, "the heartbeat")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def has_ticked() -> bool:
                return total(await scrape(client), "job_tick_timestamp_seconds") > 0

            await until(has_ticked)
            waiting = total(await scrape(client), "jobs_waiting")
        worker.signal(signal.SIGTERM)
        await worker.wait_for("Job worker stopped")

    assert waiting == 0
    assert worker.process.returncode == 0
    assert [line for line in worker.lines if line["level"] != "INFO"] == []
