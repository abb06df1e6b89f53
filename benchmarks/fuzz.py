"""Generated requests by thousands, as nobody, a reader and an editor: what breaks the contract.

The service and its servers are private and gone afterwards. COUNT says how many requests at least,
SEED repeats a run. A role ends at the first round with findings, all of which are shown.
"""

import asyncio
import multiprocessing  # sample
import os
import time
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from typing import Any

from app.development.demo_sellers import listening, run_sellers, setting  # sample
from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings
from benchmarks.contract import VISITOR, Login, check_contract
from benchmarks.service import ROOT, fill, one_worker
from chassis.development.private_servers import embedded_valkey, private_mariadb
from chassis.resources import open_resources

COUNT = 100_000
ROUND = 100  # generated requests for each operation, in one process of Schemathesis
OPERATIONS = 40  # roughly; for small counts
ACCOUNTS = {role: Login(f"{role}@example.com", VISITOR.password) for role in Role}
ROLES = (None, Role.READER, Role.EDITOR)


def main() -> None:
    count = int(os.environ.get("COUNT") or COUNT)
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(10**6))
    print(f"At least {count} requests; SEED={seed} repeats them", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fuzz-")))
        variables = start_servers(stack, folder)
        asyncio.run(prepare(variables))
        service = stack.enter_context(one_worker(**variables))
        findings = sum(
            asyncio.run(fuzz(service.url, folder, role, -(-count // len(ROLES)), seed))
            for role in ROLES
        )
    print(f"{findings} findings")
    raise SystemExit(findings > 0)


def start_servers(stack: ExitStack, folder: Path) -> dict[str, str]:
    """The variables of a service with all it can have, which refuses nobody for asking often."""
    # sample: begin
    listeners = stack.enter_context(listening())
    sellers = multiprocessing.Process(target=run_sellers, args=(listeners,), daemon=True)
    sellers.start()
    stack.callback(sellers.terminate)
    # sample: end
    mariadb = private_mariadb(folder / "mariadb", ROOT / "var", say=print)
    return {
        "DATABASE_URL": stack.enter_context(mariadb).url,
        "REDIS_URL": stack.enter_context(embedded_valkey(folder / "valkey")).url,
        "FILES_URL": f"file://{folder}/files",
        "OFFERS_SELLERS": setting(listeners),  # sample
        "LIMITS_ENABLED": "false",
        "PASSWORDS_TIME_COST": "1",  # each generated logout costs a login
        "PASSWORDS_MEMORY_COST": "64",
    }


async def prepare(variables: dict[str, str]) -> None:
    await fill(variables["DATABASE_URL"])
    groups: Any = {
        "database": {"url": variables["DATABASE_URL"]},
        "redis": {"url": variables["REDIS_URL"]},
    }
    settings = Settings(_env_file=None, **groups)
    for role, login in [(Role.READER, VISITOR), *ACCOUNTS.items()]:
        user = UserCreate(email=login.username, name="Somebody", password=login.password)
        async with open_resources(settings) as resources:
            await UserService(resources).create(user, role)


async def fuzz(url: str, folder: Path, role: Role | None, count: int, seed: int) -> int:
    """How many findings there are in `count` requests; the first round covers every parameter."""
    name, login = (role, ACCOUNTS[role]) if role else ("anonymous", None)
    phases = "examples,coverage,fuzzing,stateful"
    requests = 0
    while requests < count:
        start = time.perf_counter()
        examples = max(1, min(ROUND, (count - requests) // OPERATIONS))
        options = ("--phases", phases, "--max-examples", str(examples), "--seed", str(seed))
        report = await check_contract(url, folder, login, *options)
        requests += report.requests
        speed = report.requests / (time.perf_counter() - start)
        print(f"{name:10}{requests:7} requests, {speed:4.0f} a second, seed {seed}", flush=True)
        if report.findings:
            print(report.text, flush=True)
            return report.findings
        phases = "fuzzing,stateful"
        seed += 1
    return 0


if __name__ == "__main__":
    main()
