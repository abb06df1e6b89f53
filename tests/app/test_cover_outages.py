"""Processes die in the middle of uploads: no half cover is ever seen, and nothing is left over."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.jobs import FILE_OWNERS
from app.settings import Settings
from chassis.files.orphans import sweep_orphans
from chassis.files.settings import FilesSettings
from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.app.images import PNG, noise, opened
from tests.databases import mariadb_only
from tests.process import Service, children, running, wait_until

pytestmark = pytest.mark.drill

BOOKS = 4
SIZE = (300, 400)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path / 'files'}")
    return settings


@pytest.fixture
async def service(
    environment: dict[str, Any], settings: Settings, tmp_path: Path
) -> AsyncIterator[Service]:
    environment |= {"FILES_URL": settings.files.url, "WEB_CONCURRENCY": 2}
    environment |= {"REQUEST_TIMEOUT": 60, "PROCESSES_TIMEOUT": 60, "PROCESSES_MAX_WAIT": 60}
    async with running(tmp_path / "log", **environment) as service:
        yield service


def pool_processes(worker: int) -> list[int]:
    found = []
    for child in children(worker):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def have_ended(processes: list[int]) -> bool:
    """Also where nobody asks how: the first process of some containers does not."""
    return all(_has_ended(process) for process in processes)


def _has_ended(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


class Uploader:
    """Puts one cover after the other on its book, whatever happens."""

    def __init__(self, service: Service, book_id: int, editor: dict[str, str]) -> None:
        self.path = f"/v1/books/{book_id}/cover"
        self.client = httpx.AsyncClient(base_url=service.url, headers=editor | PNG, timeout=30)
        self.statuses: list[int] = []
        self.goes_on = True

    async def run(self) -> None:
        while self.goes_on:
            try:
                response = await self.client.put(self.path, content=noise(*SIZE))
                self.statuses.append(response.status_code)
            except httpx.TransportError:
                self.statuses.append(0)
                await asyncio.sleep(0.05)

    async def see(self) -> int:
        """Whoever looks at the cover sees one, all of it, or that there is none yet."""
        async with httpx.AsyncClient(base_url=self.client.base_url, timeout=30) as client:
            response = await client.get(self.path, params={"size": "large"}, follow_redirects=True)
        if response.status_code == 200:
            picture = opened(response.content)
            picture.load()
            assert picture.size == SIZE
        return response.status_code


@mariadb_only
async def test_killed_processes_leave_no_half_cover_and_no_orphan(
    service: Service, catalogue: Catalogue, resources: Resources, tmp_path: Path
):
    books = [await catalogue.add_book(f"Book {number}") for number in range(BOOKS)]
    uploaders = [Uploader(service, book["id"], catalogue.editor) for book in books]

    async def made(count: int) -> None:
        """Until so many more covers were taken."""
        aim = count + sum(uploader.statuses.count(200) for uploader in uploaders)
        await wait_until(
            lambda: sum(uploader.statuses.count(200) for uploader in uploaders) >= aim, "covers"
        )
        seen = await asyncio.gather(*(uploader.see() for uploader in uploaders))
        assert {*seen} <= {200, 404}

    tasks = [asyncio.create_task(uploader.run()) for uploader in uploaders]
    await made(8)
    for _ in range(2):
        for worker in service.workers:
            for child in pool_processes(worker):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        await made(4)
        worker = service.workers[0]
        its_children = pool_processes(worker)
        os.kill(worker, signal.SIGKILL)
        await wait_until(partial(have_ended, its_children), "its children")
        await made(8)
    for uploader in uploaders:
        uploader.goes_on = False
    await asyncio.gather(*tasks)

    statuses = {status for uploader in uploaders for status in uploader.statuses}
    assert statuses <= {200, 503, 0}
    storage = resources["storage"]
    assert storage is not None
    for _ in range(2):  # orphans are seen, then swept
        await sweep_orphans(resources["sessions"], storage, FILE_OWNERS, timedelta(0))
    assert await asyncio.gather(*(uploader.see() for uploader in uploaders)) == [200] * BOOKS
    files = [path for path in (tmp_path / "files" / "objects").rglob("*") if path.is_file()]
    assert len(files) == 3 * BOOKS
    assert [*(tmp_path / "files" / "uploads").iterdir()] == []
    for uploader in uploaders:
        await uploader.client.aclose()
