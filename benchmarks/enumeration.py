"""Whether responses tell if an address has an account: status, body, size and time of each.

A worker with USERS_VERIFY on a private MariaDB, and a job worker that writes mails to a folder.
Requests for known and unknown addresses are sent one at a time and in random order, as by a
stranger who compares them. Passwords cost little here: a difference would be lost in the time of a
real hash.
"""

import asyncio
import math
import os
import random
import secrets
import statistics
import sys
import time
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx2 as httpx

from app.schemas.user import UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings
from benchmarks.service import ROOT, Service, fill, one_worker
from chassis.development.private_servers import embedded_valkey, private_mariadb
from chassis.development.server_process import end_with_us
from chassis.resources import open_resources

COUNT = 200  # requests for known addresses, and as many for unknown ones
WARM_UP = 20
LEAST_LIKELY = 0.001  # of a difference in time that is due to chance
PASSWORD = "a long password"  # noqa: S105
VOLATILE = ("date", "x-request-id", "x-process-time", "server-timing", "ratelimit")
LIMITS = {
    f"LIMITS_{name}_{part}": "1000000"
    for name in ("LOGIN", "ACCOUNT", "MAILS", "WRITES")
    for part in ("RATE", "BURST")
}


class Seen(NamedTuple):
    shown: tuple[Any, ...]  # all that a client can compare, but for the time
    seconds: float


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        variables = {
            # Not SQLite, where requests would wait for the transactions of jobs.
            "DATABASE_URL": stack.enter_context(
                private_mariadb(folder / "mariadb", ROOT / "var", say=print)
            ).url,
            "REDIS_URL": stack.enter_context(embedded_valkey(folder / "valkey")).url,
            "TOKENS_KEY": secrets.token_urlsafe(32),
            "PASSWORDS_TIME_COST": "1",
            "PASSWORDS_MEMORY_COST": "64",
            "USERS_VERIFY": "true",
            "MAIL_URL": f"file://{folder}/mail",
            "LOG_LEVEL": "ERROR",
            **LIMITS,
        }
        known = [f"known-{number}@example.com" for number in range(WARM_UP + COUNT)]
        asyncio.run(prepare(known, variables))
        worker = Popen(
            [*end_with_us(), sys.executable, "-m", "app", "work"],
            cwd=ROOT,
            env=os.environ | variables,
        )
        try:
            # `one_worker` waits for a line of the log.
            service = stack.enter_context(one_worker(**variables | {"LOG_LEVEL": "INFO"}))
            told = [compare(name, service, known) for name in REQUESTS]
        finally:
            worker.terminate()
            worker.wait()
    raise SystemExit(any(told))


async def prepare(known: list[str], variables: dict[str, str]) -> None:
    await fill(variables["DATABASE_URL"])
    groups: Any = {
        "database": {"url": variables["DATABASE_URL"]},
        "redis": {"url": variables["REDIS_URL"]},
        "passwords": {"time_cost": 1, "memory_cost": 64},
        "log": {"level": "ERROR"},
    }
    async with open_resources(Settings(_env_file=None, **groups)) as resources:
        users = UserService(resources)
        for email in known:
            user = UserCreate(email=email, name="Somebody", password=PASSWORD)
            await users.create(user, verified=True)


def register(client: httpx.Client, email: str) -> httpx.Response:
    body = {"email": email, "name": "Somebody", "password": "another password"}
    return client.post("/v1/users", json=body)


def reset(client: httpx.Client, email: str) -> httpx.Response:
    return client.post("/v1/users/password-reset", json={"email": email})


def log_in(client: httpx.Client, email: str) -> httpx.Response:
    form = {"grant_type": "password", "username": email, "password": "another password"}
    return client.post("/v1/tokens", data=form)


REQUESTS = {"Registration": register, "Password reset": reset, "Login": log_in}


def compare(name: str, service: Service, known: list[str]) -> bool:
    """Print what differs; returns whether anything does."""
    seen: dict[str, list[Seen]] = {"known": [], "unknown": []}
    with httpx.Client(base_url=service.url) as client:
        # In blocks of the two kinds, so that what changes with time meets both alike.
        for address in known:
            # Others for each kind of request: a registration makes accounts.
            unknown = f"{name.replace(' ', '-').lower()}-{address}"
            for kind, email in random.sample([("known", address), ("unknown", unknown)], 2):
                start = time.perf_counter()
                response = REQUESTS[name](client, email)
                seen[kind].append(Seen(shown_by(response), time.perf_counter() - start))
    shown = {kind: {each.shown for each in sent} for kind, sent in seen.items()}
    times = {kind: [each.seconds for each in sent[WARM_UP:]] for kind, sent in seen.items()}
    chance, is_slower = rank_test(times["known"], times["unknown"])
    alike = shown["known"] == shown["unknown"] and len(shown["known"]) == 1
    [*first] = shown["known"]
    print(f"{name}: {COUNT} known and {COUNT} unknown addresses")
    print(f"  status {first[0][0]}, headers, body ({len(first[0][-1])} bytes): ", end="")
    print("the same in all" if alike else f"DIFFER: {shown}")
    for kind, seconds in times.items():
        quartiles = [f"{1000 * each:.2f}" for each in statistics.quantiles(seconds)]
        print(f"  {kind:<8} quartiles {' / '.join(quartiles)} ms")
    print(f"  a known one takes longer in {is_slower:.1%} of pairs; p = {chance:.3f}")
    return not alike or chance < LEAST_LIKELY


def shown_by(response: httpx.Response) -> tuple[Any, ...]:
    headers = {name: value for name, value in response.headers.items() if name not in VOLATILE}
    body = response.content.replace(response.headers["x-request-id"].encode(), b"")
    return (response.status_code, *sorted(headers.items()), body)


def rank_test(left: list[float], right: list[float]) -> tuple[float, float]:
    """Mann and Whitney: the probability that chance alone makes them differ so much (two-sided, by
    the normal approximation), and the share of pairs in which the left one is larger.
    """
    both = sorted([(each, True) for each in left] + [(each, False) for each in right])
    rank, total = 0.0, 0.0
    for _, tied in groupby(both, key=lambda pair: pair[0]):
        group = [is_left for _, is_left in tied]
        total += sum(group) * (rank + (len(group) + 1) / 2)
        rank += len(group)
    n, m = len(left), len(right)
    larger = total - n * (n + 1) / 2
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(larger - n * m / 2) / deviation / math.sqrt(2)), larger / (n * m)


if __name__ == "__main__":
    main()
