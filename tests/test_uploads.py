"""Bodies on their way leave nothing behind, whoever stops half way."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import Unavailable
from app.uploads import BUFFER, Folder, Upload, Uploads, open_uploads
from tests.process import wait_until


@pytest.fixture
async def uploads(tmp_path: Path) -> AsyncIterator[Uploads]:
    async with open_uploads(tmp_path / "uploads") as uploads:
        yield uploads


def files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("uploads/worker-*/*") if path.name != "lock"]


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_file_holds_what_came_and_goes_with_the_block(uploads: Uploads, tmp_path: Path):
    chunks = [b"a" * 100, b"b" * BUFFER, b"c"]
    async with uploads.receive(body(*chunks)) as path:
        assert path.read_bytes() == b"".join(chunks)
        assert files(tmp_path) == [path]

    await wait_until(lambda: files(tmp_path) == [], "its end")


async def test_sender_who_leaves_leaves_nothing(uploads: Uploads, tmp_path: Path):
    async def broken() -> AsyncIterator[bytes]:
        yield b"a" * BUFFER
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with uploads.receive(broken()):
            raise AssertionError("The body is not whole")

    await wait_until(lambda: files(tmp_path) == [], "its end")


@pytest.mark.parametrize("step", ["open", "write", "finish"])
async def test_request_that_ends_waits_for_no_disk_and_leaves_nothing(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    hanging, go_on = threading.Event(), threading.Event()
    original: Callable[..., Any] = getattr(Upload, step)

    def hang(*arguments: Any) -> Any:
        hanging.set()
        assert go_on.wait(30)
        return original(*arguments)

    monkeypatch.setattr(f"app.uploads.Upload.{step}", hang)

    async def receive() -> None:
        async with uploads.receive(body(b"a" * BUFFER)):
            raise AssertionError("The disk has not answered")

    task = asyncio.create_task(receive())
    await wait_until(hanging.is_set, "the disk")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert uploads._threads.borrowed_tokens == 1  # the thread is still there, and counted
    go_on.set()

    await wait_until(lambda: not uploads._leaving, "its end")
    assert files(tmp_path) == []


async def test_folder_that_disappears_is_made_anew(uploads: Uploads, tmp_path: Path):
    async with uploads.receive(body(b"first")):
        pass
    shutil.rmtree(tmp_path / "uploads")

    async with uploads.receive(body(b"second")) as path:
        assert path.read_bytes() == b"second"


async def test_disk_that_cannot_be_written_is_a_503(tmp_path: Path):
    (tmp_path / "uploads").touch()
    async with open_uploads(tmp_path / "uploads") as uploads:
        with pytest.raises(Unavailable):
            async with uploads.receive(body(b"a")):
                pass


def test_only_what_nobody_has_is_cleaned(tmp_path: Path):
    living, dead = Folder(tmp_path), Folder(tmp_path)
    kept, left = living.new_file(), dead.new_file()
    for path in (kept, left):
        path.touch()
    assert dead._lock is not None
    dead._lock.close()  # as the kernel does when a process ends
    Folder(tmp_path).clean()

    assert kept.exists()
    assert not left.parent.exists()
    living.close()
    assert not kept.parent.exists()


def test_link_of_somebody_else_is_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("dear")
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "lock").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic links"):
        Folder(tmp_path / "uploads").new_file()
    assert victim.read_text() == "dear"
