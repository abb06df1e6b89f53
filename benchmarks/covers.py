"""What two hundred uploads at once do to others: throughput of cached reads, lag, and memory.

Reads are sent in turns, alone and beside clients that upload one cover after the other.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2 as httpx
from PIL import Image

from app.schemas.user import UserCreate
from benchmarks.login import MAX_LAG, lateness, prepare, read
from benchmarks.service import Service, one_worker
from chassis.development.private_servers import embedded_valkey

READ = "/v1/books/7"
EDITOR = UserCreate(email="editor@example.com", name="Editor", password="a long password")  # noqa: S106
UPLOADS = 200  # at once
WORKERS = 2
SIZE = (1000, 1500)  # px
TURNS = 3
READS = 4  # rounds of them in each turn
MIN_SHARE = 0.7  # of the throughput alone
MAX_MORE = 300  # MiB more than before


@dataclass
class Outcome:
    alone: float = 0.0  # s
    beside: float = 0.0  # s
    uploading: float = 0.0  # s
    taken: int = 0
    refused: int = 0
    memory: list[float] = field(default_factory=list)  # MiB


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        variables = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/catalogue.db",
            "REDIS_URL": stack.enter_context(embedded_valkey(folder / "valkey")).url,
        }
        asyncio.run(prepare(EDITOR, **variables))
        service = stack.enter_context(
            one_worker(
                **variables,
                FILES_URL=f"file://{folder}/files",
                WEB_CONCURRENCY=str(WORKERS),
                LIMITS_WRITES_RATE="1000000",
                LIMITS_WRITES_BURST="1000000",
            )
        )
        httpx.get(service.url + READ).raise_for_status()
        form = {"username": EDITOR.email, "password": EDITOR.password, "grant_type": "password"}
        token = httpx.post(f"{service.url}/v1/tokens", data=form).json()["access_token"]
        outcome = asyncio.run(compare(service, token))
        late = lateness(service)
    part = outcome.alone / outcome.beside
    print(f"Cached reads beside {UPLOADS} uploads: {part:.0%} of alone (budget {MIN_SHARE:.0%})")
    print(
        f"Meanwhile {outcome.taken / outcome.uploading:.0f} covers a second were made of"
        f" {SIZE[0]} x {SIZE[1]} pixels, and {outcome.refused} uploads refused"
    )
    print(f"99.9 % of the time the event loops were less than {late * 1000:.0f} ms late")
    shown = ", ".join(f"{memory:.0f}" for memory in outcome.memory)
    print(f"Memory before, then after each turn: {shown} MiB (budget {MAX_MORE} more)")
    grown = max(outcome.memory) - outcome.memory[0]
    raise SystemExit(part < MIN_SHARE or late > MAX_LAG or grown > MAX_MORE)


async def compare(service: Service, token: str) -> Outcome:
    outcome = Outcome()
    await read(service)
    outcome.memory.append(service.memory())
    for _ in range(TURNS):
        for _ in range(READS):
            outcome.alone += await read(service)
        start = time.perf_counter()
        with uploading(service.url, token) as counts:
            await asyncio.sleep(1)  # all of them are there
            for _ in range(READS):
                outcome.beside += await read(service)
            outcome.memory.append(service.memory())
        taken, refused = await asyncio.to_thread(counts.get)
        outcome.taken += taken
        outcome.refused += refused
        outcome.uploading += time.perf_counter() - start
    return outcome


@contextmanager
def uploading(url: str, token: str) -> Iterator["Queue[tuple[int, int]]"]:
    """In a process of their own: those who read shall not wait for those who upload."""
    context = get_context("spawn")
    stopped, counts = context.Event(), context.Queue()
    process = context.Process(target=run_uploads, args=(url, token, stopped, counts))
    process.start()
    try:
        yield counts
    finally:
        stopped.set()


def run_uploads(url: str, token: str, stopped: Event, counts: "Queue[tuple[int, int]]") -> None:
    """Put how many were taken and how many refused."""
    bodies = [cover() for _ in range(4)]

    async def upload_all() -> None:
        uploads = (upload(url, token, bodies, number, stopped) for number in range(UPLOADS))
        taken, refused = zip(*await asyncio.gather(*uploads), strict=True)
        counts.put((sum(taken), sum(refused)))

    asyncio.run(upload_all())


async def upload(
    url: str, token: str, bodies: list[bytes], number: int, stopped: Event
) -> tuple[int, int]:
    """How many covers were taken of this client, and how many refused."""
    body = bodies[number % len(bodies)]
    head = (
        f"PUT /v1/books/{1 + number % 20}/cover HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    taken = refused = 0
    while not stopped.is_set():
        writer.write(head + body)
        response = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(response.partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        if b"\r\nconnection: close\r\n" in response:  # it was refused before its body was read
            writer.close()
            reader, writer = await asyncio.open_connection(host, int(port))
        if response.startswith(b"http/1.1 200"):
            taken += 1
        elif response.startswith((b"http/1.1 503", b"http/1.1 504")):
            refused += 1
            after = int(response.partition(b"retry-after:")[2].split()[0])
            await asyncio.sleep(after * random.uniform(1, 2))  # noqa: S311 - chance, not a secret
        else:
            raise SystemExit(f"An upload failed: {response!r}")
    writer.close()
    return taken, refused


def cover() -> bytes:
    """As a scanner makes them: some hundred kilobytes."""
    colours = random.randbytes(100 * 150 * 3)  # noqa: S311 - chance, not a secret
    picture = Image.frombytes("RGB", (100, 150), colours).resize(SIZE)
    file = BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
