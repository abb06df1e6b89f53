"""Deletes stored files that no database row refers to (docs/decisions/0016)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.clock import now
from chassis.database.engines import Sessions
from chassis.database.transactions import retry_on_deadlock
from chassis.files.model import Orphan
from chassis.files.storage import CHECKS, FolderStorage, Storage

# Returns those of the keys that are in use. A key is the path of its files, without their names.
UsedKeys = Callable[[AsyncSession, Sequence[str]], Awaitable[Sequence[str]]]


async def sweep_orphans(
    sessions: Sessions, storage: Storage, owners: Mapping[str, UsedKeys], orphaned: timedelta
) -> None:
    """Delete files in the folders of `owners` that were first found unused `orphaned` ago."""
    before = now() - orphaned
    for folder, used_keys in {CHECKS: _no_keys, **owners}.items():
        async for names in storage.batches(folder):
            files: dict[str, list[str]] = {}
            for name in names:
                files.setdefault(name.rpartition("/")[0], []).append(name)
            if old := await _find_orphans(sessions, [*files], used_keys, before):
                await storage.delete([name for key in old for name in files[key]])
                await _delete_rows(sessions, old)
    if isinstance(storage, FolderStorage):
        await storage.tidy(before)


async def _no_keys(session: AsyncSession, keys: Sequence[str]) -> Sequence[str]:
    return ()


@retry_on_deadlock
async def _find_orphans(
    sessions: Sessions, keys: list[str], used_keys: UsedKeys, before: datetime
) -> list[str]:
    """Keys that were orphans before that time; records new ones."""
    async with sessions.write() as session:
        used = {*await used_keys(session, keys)}
        # Its row may have been committed since the last sweep.
        await session.execute(delete(Orphan).where(Orphan.key.in_(used)))
        orphans = {*keys} - used
        seen = await session.scalars(select(Orphan).where(Orphan.key.in_(orphans)))
        times = {orphan.key: orphan.seen_at for orphan in seen}
        session.add_all(Orphan(key=key) for key in orphans - times.keys())
        await session.commit()
    return [key for key, seen_at in times.items() if seen_at < before]


@retry_on_deadlock
async def _delete_rows(sessions: Sessions, keys: list[str]) -> None:
    async with sessions.write() as session:
        await session.execute(delete(Orphan).where(Orphan.key.in_(keys)))
        await session.commit()
