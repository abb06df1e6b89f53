"""Alerts of the service: each is caused, told, and ends by what docs/runbooks.md says."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle

import pytest

from tests.compose.alerting import IN_MARIADB, Notices, alerting_stack, beside, runbook
from tests.compose.stack import PASSWORD, Stack, wait_until
from tests.compose.subject import PATH, TABLE

BOOK = "/v1/books/1"  # sample
FRESH = {"Cache-Control": "no-cache"}  # no response that was stored
SETTINGS = """
PASSWORDS_TIME_COST=1
PASSWORDS_MEMORY_COST=1024
JOBS_ATTEMPTS=2
JOBS_BACKOFF=1
TOKENS_REFRESH_OVERLAP=1
"""
# Of servers that are not there.
ELSEWHERE = {"MAIL_URL": "smtp://mail:8000"}
# sample: begin
ELSEWHERE["OFFERS_SELLERS"] = "shop=http://seller:8000"
# A seller that has no offer, and takes its time to say so.
SELLER = """
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.6)
        self.send_error(404)

ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
# sample: end
# A server that is the primary by another name: always up to date.
REPLICA = """
import socket, threading

def copy(one, other):
    with one, other:
        while data := one.recv(65536):
            other.sendall(data)

with socket.create_server(("0.0.0.0", 3306)) as server:
    while True:
        client = server.accept()[0]
        primary = socket.create_connection(("mariadb", 3306))
        threading.Thread(target=copy, args=(client, primary)).start()
        threading.Thread(target=copy, args=(primary, client)).start()
"""
# Says the same to each recipient.
MAIL_SERVER = """
import sys
from socketserver import StreamRequestHandler, ThreadingTCPServer

class Handler(StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 mail\\r\\n")
        reading = False
        for line in self.rfile:
            if reading and line != b".\\r\\n":
                continue
            reading = line.upper() == b"DATA\\r\\n"
            reply = sys.argv[1] if line.upper().startswith(b"RCPT") else "250 OK"
            self.wfile.write((reply if not reading else "354 Go on").encode() + b"\\r\\n")

ThreadingTCPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def alerting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One worker with two connections."""
    folder = tmp_path_factory.mktemp("alerting")
    pool = {"DATABASE_POOL_SIZE": "2", "DATABASE_MAX_OVERFLOW": "0"}
    with alerting_stack(folder, "test-service", SETTINGS, **ELSEWHERE, **pool) as made:
        # sample: begin
        with made.editor() as client:
            author = client.post("/v1/authors", json={"name": "Mary Shelley"}).json()["id"]
            for number in range(60):
                book = {"title": f"Book {number}", "author_ids": [author]}
                assert client.post("/v1/books", json=book).status_code == 201
        # sample: end
        yield made


@contextmanager
def requests(made: Stack, threads: int, *paths: str, **headers: str) -> Iterator[None]:
    """Each thread sends one after the other, until the end."""
    ended = threading.Event()

    def send() -> None:
        with made.client(**headers) as client:
            for path in cycle(paths):
                client.get(path)
                if ended.is_set():
                    return

    with ThreadPoolExecutor(threads) as pool:
        sent = [pool.submit(send) for _ in range(threads)]
        try:
            yield
        finally:
            ended.set()
    for one in sent:
        one.result()


# sample: begin
def mixed(fast: int) -> list[str]:
    """One slow request after so many fast ones; each of another book, as its response is stored."""
    slow = [f"/v1/books/{number}/offers" for number in range(1, 61)]
    return [path for one in slow for path in (*[BOOK] * fast, one)]


# sample: end


@contextmanager
def locked(made: Stack, table: str) -> Iterator[None]:
    """By a client that does something else meanwhile."""
    client = "MYSQL_PWD=$(cat /run/secrets/database_root_password) mariadb -uroot bookshelf"
    statements = f"LOCK TABLES {table} WRITE; SELECT SLEEP(300)"
    command = ("docker", "compose", *made.files, "exec", "-T", "mariadb", "sh", "-c")
    holder = made.start(*command, f'{client} -e "{statements}"')
    try:
        yield
    finally:
        holder.signal(signal.SIGKILL)
        holder.ended()


@contextmanager
def mail(made: Stack, reply: str) -> Iterator[None]:
    container = beside(made, "mail", "outbound", "python", "-c", MAIL_SERVER, reply)
    try:
        yield
    finally:
        made.done("docker", "rm", "--force", container)


# sample: begin
@contextmanager
def seller(made: Stack) -> Iterator[None]:
    container = beside(made, "seller", "outbound", "python", "-c", SELLER)
    try:
        yield
    finally:
        made.done("docker", "rm", "--force", container)


# sample: end
def test_database_that_a_lock_holds_up(alerting: Stack):
    """ErrorBudgetBurn inhibits those of longer windows."""
    caused = ["ErrorBudgetBurn", "SlowRequests", "DatabasePoolExhausted", "RequestsRefused"]
    notices = Notices(alerting, *caused, "ErrorBudgetBurn6h", "ErrorBudgetBurn3d")
    with (
        locked(alerting, TABLE),
        requests(alerting, 80, f"{PATH}?limit=7", **FRESH),
    ):
        notices.wait("firing", *caused)
        running = runbook(alerting, "DatabasePoolExhausted", IN_MARIADB + "SELECT id")
        [holder] = [line.split()[0] for line in running.splitlines() if "SLEEP(300)" in line]
        runbook(alerting, "DatabasePoolExhausted", IN_MARIADB, ID=holder)
    notices.wait("resolved", *caused)


# sample: begin
def test_budget_that_burns_more_slowly(alerting: Stack):
    """One slow request of ten, then one of forty."""
    notices = Notices(alerting, "ErrorBudgetBurn", "ErrorBudgetBurn6h", "ErrorBudgetBurn3d")
    with seller(alerting):
        with requests(alerting, 1, *mixed(9)):
            notices.wait("firing", "ErrorBudgetBurn6h", slo="latency")
        with requests(alerting, 1, *mixed(39)):
            notices.wait("firing", "ErrorBudgetBurn3d", slo="latency")
    notices.wait("resolved", "ErrorBudgetBurn6h", "ErrorBudgetBurn3d", slo="latency")

    assert not notices.has("firing", alertname="ErrorBudgetBurn")


def test_seller_that_is_away(alerting: Stack):
    notices = Notices(alerting, "CircuitOpen")
    with requests(alerting, 1, f"{BOOK}/offers"):
        notices.wait("firing")
        with seller(alerting):
            notices.wait("resolved")


# sample: end


def test_passwords_and_tokens_of_somebody_else(alerting: Stack):
    notices = Notices(alerting, "RefreshTokenReused", "PasswordsGuessed")
    form = {"grant_type": "password", "username": "editor@example.com", "password": PASSWORD}
    with alerting.client() as client:
        stolen = {"refresh_token": client.post("/v1/tokens", data=form).json()["refresh_token"]}
        client.post("/v1/tokens/refresh", json=stolen)

        def is_refused() -> bool:
            return client.post("/v1/tokens/refresh", json=stolen).status_code == 401

        def is_guessed() -> bool:
            for _ in range(5):
                client.post("/v1/tokens", data=form | {"password": "wrong"})
            return notices.has("firing", alertname="PasswordsGuessed")

        wait_until(is_refused, "the end of the overlap")
        wait_until(is_guessed, "guesses that are noticed")
    notices.wait("firing")
    notices.wait("resolved")


def test_mail_that_is_refused_and_jobs_that_fail(alerting: Stack):
    """Jobs fail without a mail server, and the first that comes up refuses all recipients."""
    alerting.sql("DELETE FROM outbox")  # the editor has a welcome too
    notices = Notices(alerting, "JobsDead", "MailRefused")
    for number in range(7):
        alerting.register(f"refused{number}")
    notices.wait("firing", "JobsDead")
    assert "Errno" in alerting.compose("exec", "-T", "worker", "python", "-m", "app", "jobs")
    with mail(alerting, "550 5.7.1 Relay access denied"):
        runbook(alerting, "JobsDead", "compose exec worker python -m app jobs --requeue-all")
        notices.wait("resolved", "JobsDead")
        notices.wait("firing", "MailRefused")
    with mail(alerting, "250 OK"):
        alerting.register("accepted")
        notices.wait("resolved", "MailRefused")


def test_workers_that_stand_still_and_crash(alerting: Stack):
    notices = Notices(alerting, "EventLoopBlocked", "WorkersCrash")
    worker = "$(grep -l '^PPid:.1$' /proc/[0-9]*/status | head -1 | cut -d / -f 3)"
    freeze = f"kill -STOP {worker}; sleep 0.3; kill -CONT {worker}; sleep 0.2"
    assert alerting.inside("api", f"for i in $(seq 12); do {freeze}; done").returncode == 0
    notices.wait("firing", "EventLoopBlocked")
    kill = f"for i in $(seq 7); do kill -KILL {worker}; sleep 3; done"
    assert alerting.inside("api", kill).returncode == 0
    notices.wait("firing", "WorkersCrash")
    notices.wait("resolved")


def test_job_workers_that_are_away_and_jobs_that_wait_for_long(alerting: Stack):
    notices = Notices(alerting, "JobsStandStill", "JobsLate")
    alerting.compose("stop", "worker")
    alerting.register("late")
    # As after some failures; the next attempt is far.
    later = "due_at = due_at + INTERVAL 1 HOUR"
    alerting.sql(f"UPDATE outbox SET created_at = created_at - INTERVAL 1 HOUR, {later}")
    notices.wait("firing", "JobsStandStill")
    runbook(alerting, "JobsStandStill", "compose up -d --wait --no-recreate worker")
    notices.wait("resolved", "JobsStandStill")
    notices.wait("firing", "JobsLate")
    with mail(alerting, "250 OK"):
        alerting.sql("UPDATE outbox SET due_at = due_at - INTERVAL 1 HOUR")
        notices.wait("resolved", "JobsLate")


def test_cache_that_refuses_writes_or_whose_content_may_be_old(alerting: Stack):
    notices = Notices(alerting, "RedisFull", "RedisFails", "CacheUnavailable", "ServerDown")
    valkey(alerting, "valkey", "config set maxmemory 1mb", "config set maxmemory-policy noeviction")
    with requests(alerting, 1, *(f"{PATH}?limit={number}" for number in range(1, 99))):
        notices.wait("firing", "RedisFull", "RedisFails")
        runbook(alerting, "RedisFull", "compose restart valkey")
        alerting.sql("RENAME TABLE cache_epoch TO gone")
        notices.wait("firing", "CacheUnavailable")
        alerting.sql("RENAME TABLE gone TO cache_epoch")
        notices.wait("resolved", "RedisFull", "RedisFails", "CacheUnavailable")


def valkey(made: Stack, service: str, *commands: str) -> None:
    client = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli"
    for command in commands:
        finished = made.inside(service, f"{client} {command}")
        assert finished.returncode == 0, finished.stdout


def test_replica_that_is_away(alerting: Stack):
    """The last of this file: the service has other settings afterwards."""
    notices = Notices(alerting, "ReplicaAvoided")
    url = "DATABASE_READ_URL=mariadb+asyncmy://replica"
    (alerting.folder / "production.env").write_text(f"{SETTINGS}{url}\n")
    alerting.compose("up", "--detach", "--wait", "api")
    notices.wait("firing")
    assert "is unavailable" in runbook(alerting, "ReplicaAvoided", "compose logs --since 10m api")
    beside(alerting, "replica", "data", "python", "-c", REPLICA)
    notices.wait("resolved")
