"""Imports a catalogue file into a database, batch by batch."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.sample.goodbooks import BadRow, GoodRow, Note, WrongShape, read_goodbooks
from app.sample.imports import ImportService
from chassis.database.engines import create_engine, reason_of
from chassis.database.settings import DatabaseSettings

BATCH = 500  # rows of one transaction
MAX_ALIKE = 25  # notes of a kind that are shown on lines of their own


@dataclass
class Imported:
    added: int = 0
    skipped: int = 0
    refused: list[BadRow] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def describe(notes: Iterable[Note]) -> Iterator[str]:
    """A line for each note, or one for all of a kind, with their line numbers."""
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
                imported.skipped += len(batch) - done.added - len(done.refused)
                imported.refused += done.refused
                imported.notes += done.notes
                progress(start + len(batch), len(good))
            if imported.added:
                await service.invalidate()
    finally:
        await engine.dispose()
    imported.refused.sort()
    imported.notes.sort()
    return imported


def import_by_hand(settings: DatabaseSettings, file: Path, console: Console) -> None:
    """Show progress, a line for each note and refused row; SystemExit (1) if a row was refused."""
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"Importing {file.name}", total=None)
            result = asyncio.run(
                import_catalogue(
                    settings,
                    file,
                    lambda done, total: progress.update(task, completed=done, total=total),
                )
            )
    except (WrongShape, OSError) as error:
        raise SystemExit(f"Nothing was imported: {error}") from None
    except SQLAlchemyError as error:
        raise SystemExit(
            f"The database failed; import again to go on: {reason_of(error)}"
        ) from None
    for text in describe(result.notes):
        typer.echo(f"{file}:{text}", err=True)
    for row in result.refused:
        typer.echo(f"{file}:{row.line}: {row.reason}", err=True)
    typer.echo(
        f"{result.added} books added, {result.skipped} known already, {len(result.refused)} refused"
    )
    if result.refused:
        raise SystemExit(1)
