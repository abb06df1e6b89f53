"""Bodies on their way leave nothing behind, at whatever point a request ends."""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import pytest

from chassis.errors import Unavailable
from chassis.files.uploads import BUFFER, Uploads, open_uploads
from tests.process import wait_until


@pytest.fixture
async def uploads(tmp_path: Path) -> AsyncIterator[Uploads]:
    async with open_uploads(tmp_path / "uploads") as uploads:
        yield uploads


def leftovers(uploads: Uploads) -> list[str]:
    """Files that have a name, and those that this process has open."""
    left = [str(path) for path in uploads.folder.glob("*")]
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            left.append(os.readlink(descriptor))
    return [path for path in left if path.startswith(str(uploads.folder))]


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_file_holds_what_came_and_goes_with_the_block(uploads: Uploads):
    chunks = [b"a" * 100, b"b" * BUFFER, b"c"]
    async with uploads.receive(body(*chunks)) as path:
        read = await asyncio.to_thread(subprocess.check_output, ["cat", path])
        assert read == b"".join(chunks)
        assert [*uploads.folder.iterdir()] == []  # so that a killed process leaves nothing

    await wait_until(lambda: leftovers(uploads) == [], "its end")


async def test_sender_who_leaves_leaves_nothing(uploads: Uploads):
    async def broken() -> AsyncIterator[bytes]:
        yield b"a" * BUFFER
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with uploads.receive(broken()):
            raise AssertionError("The body is not whole")

    await wait_until(lambda: leftovers(uploads) == [], "its end")


@pytest.mark.parametrize("step", ["queued", "open", "write"])
async def test_request_that_ends_waits_for_no_disk_and_leaves_nothing(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, step: str
):
    hanging, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        assert go_on.wait(30)

    def hang_and_open(**options: Any) -> Any:
        hang()
        return TemporaryFile(**options)

    async def hanging_body() -> AsyncIterator[bytes]:
        if step == "write":
            uploads._thread.submit(hang)
        yield b"a" * BUFFER

    async def receive() -> None:
        async with uploads.receive(hanging_body()):
            raise AssertionError("The disk has not answered")

    if step == "open":
        monkeypatch.setattr("chassis.files.uploads.TemporaryFile", hang_and_open)
    if step == "queued":
        uploads._thread.submit(hang)
    task = asyncio.create_task(receive())
    await wait_until(hanging.is_set, "the disk")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()

    await asyncio.wrap_future(uploads._thread.submit(int))  # what came before it is done
    assert leftovers(uploads) == []


async def test_folder_that_disappears_is_made_anew(uploads: Uploads):
    async with uploads.receive(body(b"first")):
        pass
    shutil.rmtree(uploads.folder)

    async with uploads.receive(body(b"second")) as path:
        assert await asyncio.to_thread(Path(path).read_bytes) == b"second"


async def test_disk_that_cannot_be_written_is_a_503(tmp_path: Path):
    (tmp_path / "uploads").touch()
    async with open_uploads(tmp_path / "uploads") as uploads:
        with pytest.raises(Unavailable):
            async with uploads.receive(body(b"a")):
                pass


def open_full_disk(**options: Any) -> BinaryIO:
    return open("/dev/full", "w+b")


async def test_disk_that_becomes_full_is_a_503(uploads: Uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("chassis.files.uploads.TemporaryFile", open_full_disk)

    with pytest.raises(Unavailable):
        async with uploads.receive(body(b"a")):
            pass
