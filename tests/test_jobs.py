"""Jobs: written with their cause, done by a worker, tried again, put aside, never lost."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, func, select, update

from app.accounts import users_of
from app.background import background
from app.jobs import REPEATED, Tools, clean, refresh_rankings, sweep_outbox
from app.models import KeptAnswer, OutboxEntry, RefreshToken, User, UserSession
from app.models.base import now
from app.resources import Resources, open_resources
from app.scheduler import run_scheduler
from app.schemas.user import UserCreate
from app.servers.private import embedded_valkey
from app.settings import JobsSettings, MailSettings, PasswordSettings, Settings
from tests.catalogue import Catalogue
from tests.command import finish, run, start
from tests.databases import mariadb_only
from tests.job_process import job_worker
from tests.jobs import tools_of, working
from tests.mail import mail_server, read_mail
from tests.metrics import scrape, total
from tests.process import TIMEOUT, free_port, wait_until

MARY = {"email": "mary@example.com", "name": "Märy <i>", "password": "frankenstein"}
NOWHERE = "unix:///nowhere/valkey.sock"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.passwords = PasswordSettings(time_cost=1, memory_cost=8)  # what it costs is not tested
    settings.mail = MailSettings(url=f"file://{tmp_path}/mail")
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


async def register(client: httpx2.AsyncClient, status: int = 201) -> None:
    answer = await client.post("/v1/users", json=MARY)
    assert answer.status_code == status, answer.text


async def test_who_registers_gets_a_welcome(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    async with working(settings, resources):
        await register(client)
        await empty(resources)

    [mail] = read_mail(tmp_path / "mail")
    text, html = mail.iter_parts()
    assert (mail["To"], mail["Subject"]) == ("mary@example.com", "Welcome to Books")
    assert mail["From"] == "Books <books@example.com>"
    assert [part.get_content_type() for part in (text, html)] == ["text/plain", "text/html"]
    assert "Hello Märy <i>," in text.get_content()
    assert "Hello Märy &lt;i&gt;," in html.get_content()


async def test_mail_reaches_a_real_server(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(tmp_path / "maildir") as url:
        settings.mail = MailSettings(url=url)
        async with working(settings, resources):
            await register(client)
            await empty(resources)

    [mail] = read_mail(tmp_path / "maildir")
    body = mail.get_body(("plain",))
    assert (mail["To"], mail["X-RcptTo"]) == ("mary@example.com", "mary@example.com")
    assert body is not None
    assert "Hello Märy <i>," in body.get_content()


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
    client: httpx2.AsyncClient,
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
    with mail_server(tmp_path / "maildir", smtputf8=smtputf8) as url:
        settings.mail = MailSettings(url=url)
        async with working(settings, resources) as tools:
            made = await client.post("/v1/users", json=MARY | {"email": email})
            assert made.status_code == 201
            await empty(resources)
            backlog = await tools.jobs.backlog()

    assert backlog.dead == 0
    mails = read_mail(tmp_path / "maildir")
    if not smtputf8 and not recipient.isascii():
        assert mails == []
        assert "cannot be reached by mail: An address containing non-ASCII" in caplog.text
        return
    [mail] = mails
    body = mail.get_body(("plain",))
    assert (mail["To"], mail["X-RcptTo"]) == (recipient, recipient)
    assert body is not None
    assert email in body.get_content()
    assert "cannot be reached" not in caplog.text


async def test_domain_of_the_sender_goes_out_as_dns_has_it(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(tmp_path / "maildir") as url:
        sender = "B\u00fccher Inc. <books@b\u00fccher.example>"
        settings.mail = MailSettings(url=url, sender=sender)
        async with working(settings, resources):
            await register(client)
            await empty(resources)

    [mail] = read_mail(tmp_path / "maildir")
    assert mail["X-MailFrom"] == "books@xn--bcher-kva.example"
    assert mail["From"].addresses[0].display_name == "B\u00fccher Inc."
    assert mail["From"].addresses[0].addr_spec == "books@xn--bcher-kva.example"
    assert mail["Message-ID"].endswith("@xn--bcher-kva.example>")


async def test_mail_to_an_address_that_is_not_ascii_is_a_file_that_can_be_read(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    async with working(settings, resources):
        body = MARY | {"email": "jos\u00e9@b\u00fccher.example"}
        assert (await client.post("/v1/users", json=body)).status_code == 201
        await empty(resources)

    [file] = (tmp_path / "mail").iterdir()
    [mail] = read_mail(tmp_path / "mail")
    assert mail["To"] == "jos\u00e9@xn--bcher-kva.example"
    # In UTF-8 (RFC 6532): an encoded word is no part of an address.
    assert "\r\nTo: jos\u00e9@xn--bcher-kva.example\r\n" in file.read_bytes().decode()


async def test_password_is_not_sent_to_a_server_without_tls(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(tmp_path / "maildir") as url:
        with_user = url.replace("//", "//me@")
        settings.mail = MailSettings(url=with_user, password="secret")
        async with working(settings, resources) as tools:
            await register(client)
            [dead] = await until_dead(tools)

    assert "STARTTLS" in (dead.error or "")
    assert read_mail(tmp_path / "maildir") == []


async def until_dead(tools: Tools) -> list[OutboxEntry]:
    """Sweep until there are dead jobs, as a scheduler would every few seconds."""

    async def is_dead() -> list[OutboxEntry]:
        await sweep_outbox(tools)
        return await tools.jobs.dead()

    await until(is_dead)
    return await tools.jobs.dead()


async def test_address_that_is_refused_for_good_is_no_failure(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(tmp_path / "maildir", "tests.mail.Refusing") as url:
        settings.mail = MailSettings(url=url)
        async with working(settings, resources) as tools:
            await register(client)
            await empty(resources)
            backlog = await tools.jobs.backlog()

    assert backlog.dead == 0


async def test_what_is_refused_leaves_no_job(client: httpx2.AsyncClient, resources: Resources):
    await register(client)
    await register(client, 409)

    assert [entry.key for entry in await entries(resources)] == [f"welcome-{await user_id(client)}"]


async def user_id(client: httpx2.AsyncClient) -> int:
    form = {"grant_type": "password", "username": MARY["email"], "password": MARY["password"]}
    token = (await client.post("/v1/tokens", data=form)).json()["access_token"]
    me = await client.get("/v1/users/me", headers={"Authorization": f"Bearer {token}"})
    found: int = me.json()["id"]
    return found


async def test_job_is_done_once_however_often_it_is_delivered(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    with mail_server(tmp_path / "maildir") as url:
        settings.mail = MailSettings(url=url)
        await register(client)
        async with working(settings, resources) as tools:
            [entry] = await entries(resources)
            for _ in range(20):
                await tools.queue.send(entry.id, 0)
            await empty(resources)
            await nothing_left(tools)

    assert len(read_mail(tmp_path / "maildir")) == 1


async def nothing_left(tools: Tools) -> None:
    async def is_nothing_left() -> bool:
        groups = await tools.queue.redis.xinfo_groups(tools.queue.broker.queue_name)
        return [(group["lag"], group["pending"]) for group in groups] == [(0, 0)]

    await until(is_nothing_left)


async def test_registration_without_redis_is_swept_later(
    settings: Settings, resources: Resources, tmp_path: Path
):
    away = settings.model_copy(update={"jobs": JobsSettings(url=NOWHERE)})
    async with open_resources(away) as without:
        await users_of(without).create(UserCreate.model_validate(MARY))
    async with working(settings, resources) as tools:
        await sweep_outbox(tools)
        early = await entries(resources)
        await make_due(resources)
        await sweep_outbox(tools)
        await empty(resources)

    assert len(early) == 1  # the relay has its head start
    assert len(read_mail(tmp_path / "mail")) == 1


@mariadb_only
async def test_job_that_fails_is_tried_again_then_put_aside_until_somebody_looks(
    client: httpx2.AsyncClient,
    settings: Settings,
    resources: Resources,
    environment: dict[str, Any],
    tmp_path: Path,
):
    mail, settings.mail = settings.mail, MailSettings()
    async with working(settings, resources) as tools:
        await register(client)
        [dead] = await until_dead(tools)
        backlog = await tools.jobs.backlog()
        shown = run(tmp_path, "jobs", **environment)
    requeued = run(tmp_path, "jobs", "--requeue", dead.id, **environment)
    again = run(tmp_path, "jobs", "--requeue", dead.id, **environment)
    settings.mail = mail
    async with working(settings, resources) as tools:
        await sweep_outbox(tools)
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
    client: httpx2.AsyncClient,
    settings: Settings,
    resources: Resources,
    environment: dict[str, Any],
    tmp_path: Path,
):
    await register(client)
    [entry] = await entries(resources)
    async with tools_of(settings, resources) as tools:
        alive = await tools.jobs.discard(entry.id)
        for attempts in range(3):
            claimed = await tools.jobs.claim(entry.id, attempts)
            assert claimed is not None
            await tools.jobs.fail(claimed, "[/markup] is not")
    shown = run(tmp_path, "jobs", **environment)
    forgotten = run(tmp_path, "jobs", "--discard", entry.id, **environment)

    assert alive == 0
    assert "[/markup] is not" in shown[1]
    assert forgotten[:1] == (0,)
    assert await entries(resources) == []


async def test_wait_before_another_attempt_doubles(resources: Resources, settings: Settings):
    settings.jobs = JobsSettings(backoff=10, attempts=30)
    await users_of(resources).create(UserCreate.model_validate(MARY))
    waits = []
    async with tools_of(settings, resources) as tools:
        for attempt in range(12):
            [entry] = await entries(resources)
            claimed = await tools.jobs.claim(entry.id, attempt)
            assert claimed is not None
            before = now()
            await tools.jobs.fail(claimed, "no")
            [entry] = await entries(resources)
            waits.append((entry.due_at - before).total_seconds())

    expected = [min(3600, 10 * 2**attempt) for attempt in range(12)]
    ratios = [wait / usual for wait, usual in zip(waits, expected, strict=True)]
    assert all(0.5 <= ratio < 1.6 for ratio in ratios), waits
    assert len({round(ratio, 3) for ratio in ratios}) > 6  # jitter


async def test_job_of_a_worker_that_died_is_done_by_another(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    await register(client)
    [entry] = await entries(resources)
    async with tools_of(settings, resources) as died:
        assert await died.jobs.claim(entry.id, 0)
    async with working(settings, resources) as tools:
        await nothing_left(tools)  # its message says nothing to others, as it has the job
        unfinished = await entries(resources)
        await make_due(resources)
        await sweep_outbox(tools)
        await empty(resources)

    assert len(unfinished) == 1
    assert len(read_mail(tmp_path / "mail")) == 1


async def test_job_that_kills_its_workers_is_put_aside(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources
):
    await register(client)
    [entry] = await entries(resources)
    async with tools_of(settings, resources) as tools:
        for attempts in range(3):
            assert await tools.jobs.claim(entry.id, attempts)
            await make_due(resources)
        [dead] = await until_dead(tools)

    assert dead.error == "The worker that did it was lost"


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
    client: httpx2.AsyncClient, settings: Settings, resources: Resources
):
    async with silent_server() as (url, came):
        settings.mail = MailSettings(url=url)
        async with working(settings, resources):
            await register(client)
            await came.wait()
        [entry] = await entries(resources)

    assert entry.attempts == 0
    assert entry.due_at <= now()


async def test_job_may_end_after_its_queue_went_and_came_back(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources, tmp_path: Path
):
    leave = asyncio.Event()
    with embedded_valkey(tmp_path / "valkey") as valkey:
        settings.jobs = JobsSettings(url=valkey.url, graceful_timeout=TIMEOUT)
        async with silent_server(leave) as (url, came), open_resources(settings) as own:
            settings.mail = MailSettings(url=url)
            async with working(settings, own):
                await users_of(own).create(UserCreate.model_validate(MARY))
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
    client: httpx2.AsyncClient, settings: Settings, resources: Resources
):
    settings.jobs = JobsSettings(backoff=0.01, attempts=1, timeout=0.1)
    async with silent_server() as (url, _):
        settings.mail = MailSettings(url=url)
        async with working(settings, resources) as tools:
            await register(client)
            [dead] = await until_dead(tools)

    assert (dead.error or "").startswith("TimeoutError")


async def test_worker_goes_on_when_redis_comes_back_empty(settings: Settings, tmp_path: Path):
    with embedded_valkey(tmp_path / "valkey") as valkey:
        settings.jobs.url = JobsSettings(url=valkey.url).url
        async with open_resources(settings) as resources, working(settings, resources) as tools:
            users = users_of(resources)
            await users.create(UserCreate.model_validate(MARY))
            await empty(resources)
            assert valkey.process is not None
            valkey.process.kill()
            valkey.process.wait()
            await users.create(UserCreate.model_validate(MARY | {"email": "percy@example.com"}))
            valkey.start()
            await make_due(resources)

            async def is_swept() -> bool:
                try:
                    await sweep_outbox(tools)
                except Exception:  # its connections are not the server's any more
                    return False
                return True

            await until(is_swept)
            await empty(resources)
            async with resources["sessions"].write.begin() as session:
                await session.execute(delete(User))

    assert len(read_mail(tmp_path / "mail")) == 2


async def test_scheduler_reaches_the_workers(
    catalogue: Catalogue, settings: Settings, resources: Resources
):
    metrics = resources["metrics"]
    await catalogue.add_book()
    async with working(settings, resources) as tools, background(run_scheduler(tools.queue), "s"):

        async def has_done_all() -> bool:
            done = {
                sample.labels["name"]
                for family in metrics.registry.collect()
                for sample in family.samples
                if sample.name == "job_duration_seconds_count"
            }
            return done == REPEATED.keys()

        await until(has_done_all)
    ranking = await catalogue.client.get("/v1/rankings/books")

    assert metrics.job_tick._value.get() == pytest.approx(now().timestamp(), abs=TIMEOUT)
    assert ranking.status_code == 200


async def test_rankings_wait_for_their_visitor(
    catalogue: Catalogue, settings: Settings, resources: Resources
):
    await catalogue.add_book()
    async with tools_of(settings, resources) as tools:
        await refresh_rankings(tools)
    before = resources["metrics"].cache_loads._value.get()
    await catalogue.client.get("/v1/rankings/books?limit=100")

    after = resources["metrics"].cache_loads._value.get()
    assert after - before == 1  # the answer, out of the ranking that was there


async def test_what_has_expired_is_deleted_and_nothing_else(
    client: httpx2.AsyncClient, settings: Settings, resources: Resources
):
    key = {"Idempotency-Key": "key"}
    form = {"grant_type": "password", "username": MARY["email"], "password": MARY["password"]}
    await register(client)
    for number in range(2):
        headers = key | {"Idempotency-Key": f"key-{number}"}
        answer = await client.post("/v1/tokens", data=form, headers=headers)
        assert answer.status_code == 200
    past = now() - timedelta(days=2)
    async with resources["sessions"].write.begin() as session:
        old = await session.scalar(select(UserSession.id).limit(1))
        first = await session.scalar(select(func.min(KeptAnswer.digest)))
        await session.execute(
            update(RefreshToken).where(RefreshToken.session_id == old).values(expires_at=past)
        )
        await session.execute(update(UserSession).values(created_at=past))
        await session.execute(
            update(KeptAnswer).where(KeptAnswer.digest == first).values(expires_at=past)
        )

    async with tools_of(settings, resources) as tools:
        await clean(tools)

    async with resources["sessions"].read() as session:
        counts = [
            await session.scalar(select(func.count()).select_from(model))
            for model in (RefreshToken, UserSession, KeptAnswer, User)
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
    }
    async with job_worker(tmp_path / "log", "--schedule", **variables) as worker:
        await wait_until(heartbeat.exists, "the heartbeat")
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def has_ticked() -> bool:
                return total(await scrape(client), "job_tick_timestamp_seconds") > 0

            await until(has_ticked)
            waiting = total(await scrape(client), "jobs_waiting")
        worker.signal(signal.SIGTERM)
        await worker.wait_for("Job worker stopped")

    assert waiting == 0
    assert worker.process.returncode == 0
    assert [line for line in worker.lines if line["level"] != "INFO"] == []


@mariadb_only
async def test_scheduler_process_stops_when_told(environment: dict[str, Any], tmp_path: Path):
    process = start(tmp_path, "schedule", **environment, JOBS_HEARTBEAT=tmp_path / "heartbeat")
    await wait_until((tmp_path / "heartbeat").exists, "the heartbeat")
    process.terminate()
    code, output, errors = finish(process)

    assert (code, errors) == (0, "")
    assert "Scheduler started" in output
    assert "Scheduler stopped" in output
