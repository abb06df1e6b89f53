"""Readers who know what writers were told, and notice when they are shown something older."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from urllib.parse import urlsplit

import httpx2 as httpx

from benchmarks.client import Client, Tally

VERSION = re.compile(rb'"version":(\d+)')
PAUSE = 0.05  # s; of a writer between two changes


@dataclass
class History:
    tally: Tally = field(default_factory=Tally)
    # The version that some write has returned: from then on nobody may see an older one.
    known: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    writes: Counter[int] = field(default_factory=Counter)
    old: list[tuple[str, int, int]] = field(default_factory=list)


class Reader(Client):
    """Asks for what has a version and, in between, for other things that have no version."""

    def __init__(
        self, paths: Iterator[str], history: History, ended: "asyncio.Future[None]"
    ) -> None:
        super().__init__(paths, history.tally, ended)
        self.history = history

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.path in self.history.known and self.parser.get_status_code() == 200:
            match = VERSION.search(self.body)
            version = int(match[1]) if match else 0
            self.history.reads += 1
            if version < self.least:
                self.history.old.append((self.path, version, self.least))
        super().on_message_complete()

    def _ask(self) -> None:
        super()._ask()
        self.least = self.history.known.get(self.path, 0)


async def read_and_write(
    url: str, paths: list[str], others: list[str], requests: int, token: str, history: History
) -> None:
    """Read `paths`, and `others` in between, so many times, while two writers change them."""
    history.known.update(dict.fromkeys(paths, 1))
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    remaining = islice(cycle([*paths, *others]), requests)
    loop = asyncio.get_running_loop()

    async def keep_reading() -> None:
        reader = Reader(remaining, history, loop.create_future())
        while not reader.done:
            reader.ended = loop.create_future()
            await loop.create_connection(lambda: reader, host, port)
            await reader.ended

    async def keep_writing(own: list[str]) -> None:
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}
        ) as client:
            for number, path in enumerate(cycle(own)):
                response = await client.patch(path, json={"note": f"Note {number}"})
                history.writes[response.status_code] += 1
                if response.status_code == 200:
                    history.known[path] = max(history.known[path], response.json()["version"])
                await asyncio.sleep(PAUSE)

    writers = [asyncio.create_task(keep_writing(paths[turn::2])) for turn in range(2)]
    await asyncio.gather(*(keep_reading() for _ in range(32)))
    for writer in writers:
        writer.cancel()
    done = await asyncio.gather(*writers, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in done), done
