"""Imports a catalogue file into a database, batch by batch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from app.database import create_engine
from app.goodbooks import BadRow, GoodRow, Note, read_goodbooks
from app.services.imports import ImportService
from app.settings import DatabaseSettings

BATCH = 500  # rows of one transaction
MAX_ALIKE = 25  # notes of a kind that are shown one by one


@dataclass
class Imported:
    added: int = 0
    known: int = 0
    refused: list[BadRow] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def describe(notes: Iterable[Note]) -> Iterator[str]:
    """A line for each note, or one for all of a kind with the numbers of their lines."""
    for _, same in groupby(sorted(notes, key=attrgetter("kind", "line")), attrgetter("kind")):
        first, *others = same
        if len(others) < MAX_ALIKE:
            yield from (f"{note.line}: {note.text}" for note in (first, *others))
        else:
            lines = ", ".join(str(note.line) for note in others)
            yield f"{first.line}: {first.text}; {len(others)} more such rows: {lines}"


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
                done = await service.add(batch)
                imported.added += done.added
                imported.known += len(batch) - done.added - len(done.refused)
                imported.refused += done.refused
                imported.notes += done.notes
                progress(start + len(batch), len(good))
    finally:
        await engine.dispose()
    imported.refused.sort()
    imported.notes.sort()
    return imported
