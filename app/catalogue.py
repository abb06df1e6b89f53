"""Imports a catalogue file into a database, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from app.database import create_engine
from app.goodbooks import BadRow, GoodRow, read_goodbooks
from app.services.imports import ImportService
from app.settings import DatabaseSettings

BATCH = 500  # rows of one transaction


@dataclass
class Imported:
    added: int = 0
    known: int = 0
    refused: list[BadRow] = field(default_factory=list)


async def import_catalogue(
    settings: DatabaseSettings, path: Path, progress: Callable[[int, int], None]
) -> Imported:
    """Raises WrongShape or OSError before anything is written."""
    rows = read_goodbooks(path)
    imported = Imported(refused=[row for row in rows if isinstance(row, BadRow)])
    good = [row for row in rows if isinstance(row, GoodRow)]
    engine = create_engine(settings, "maintenance")
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            service = ImportService(session)
            for start in range(0, len(good), BATCH):
                batch = good[start : start + BATCH]
                added, refused = await service.add(batch)
                imported.added += added
                imported.known += len(batch) - added - len(refused)
                imported.refused += refused
                progress(start + len(batch), len(good))
    finally:
        await engine.dispose()
    imported.refused.sort()
    return imported
