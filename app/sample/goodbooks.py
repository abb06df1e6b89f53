"""Reads the goodbooks CSV format: of each row a book, or the reason to refuse it."""

import csv
import io
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from app.sample.isbn import LostDigits, parse_isbn_cell
from app.schemas.author import AuthorName
from app.schemas.book import MAX_AUTHORS, Language, Title, Year

MAX_SHOWN = 80  # characters of a cell
SAVE_AS = "save it as UTF-8 (spreadsheets call that CSV UTF-8)"


class WrongShape(Exception):
    """The file is not in this format; nothing was imported."""


def _split(text: str) -> list[str]:
    return text.split(",")


class GoodbooksRow(BaseModel):
    """The columns that are read, by their names in the file."""

    goodreads_book_id: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
    isbn: str | None
    authors: Annotated[
        list[AuthorName],
        Field(max_length=MAX_AUTHORS),
        BeforeValidator(_split),
        AfterValidator(lambda names: list(dict.fromkeys(names))),
    ]
    original_publication_year: Annotated[
        Year | None, BeforeValidator(lambda text: float(text) if text.strip() else None)
    ]
    title: Title
    language_code: Annotated[Language | None, BeforeValidator(lambda text: text.strip() or None)]
    average_rating: Annotated[Decimal, Field(ge=0, le=5)]
    ratings_count: Annotated[int, Field(ge=0, le=2**31 - 1)]


class BadRow(NamedTuple):
    line: int
    reason: str


class Note(NamedTuple):
    """Part of an imported row was left out or changed; notes of a `kind` are shown together."""

    line: int
    text: str
    kind: str


class GoodRow(NamedTuple):
    line: int
    book: GoodbooksRow
    notes: tuple[Note, ...] = ()
    authors: tuple[str, ...] = ()  # as in the file, trimmed


def read_goodbooks(path: Path) -> list[GoodRow | BadRow]:
    """The rows of the file in their order. Raises WrongShape or OSError."""
    lines = io.StringIO(_decode(path), newline="").readlines()
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise WrongShape(f"{path} is not CSV: {error}") from None
    if missing := [name for name in GoodbooksRow.model_fields if name not in header]:
        raise WrongShape(
            f"{path} is not in the goodbooks format: its first line lacks "
            f"the columns {', '.join(missing)}"
        )
    return list(_read_rows(lines, reader.line_num, header))


def _decode(path: Path) -> str:
    content = path.read_bytes()
    # A byte order mark; or ASCII letters, of which every other byte is zero.
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        raise WrongShape(f"{path} is not UTF-8 text but UTF-16: {SAVE_AS}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise WrongShape(
            f"{path} is not UTF-8 text (byte 0x{content[error.start]:02X} in line {line}), "
            f"but maybe Latin-1 or Windows-1252: {SAVE_AS}"
        ) from None


def _read_rows(lines: list[str], done: int, header: list[str]) -> Iterator[GoodRow | BadRow]:
    while done < len(lines):
        reader = csv.reader(lines[done:], strict=True)
        line = done + 1
        try:
            for cells in reader:
                if cells:
                    yield _read_row(line, header, cells)
                line = done + reader.line_num + 1
            return
        except csv.Error as error:
            yield BadRow(line, str(error))
        # An unclosed quote has swallowed the next rows: go on after its first line.
        done = line


def _read_row(line: int, header: list[str], cells: list[str]) -> GoodRow | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"has {len(cells)} cells instead of {len(header)}")
    row = dict(zip(header, cells, strict=True))
    isbn, notes = _read_isbn(line, row)
    try:
        book = GoodbooksRow.model_validate({**row, "isbn": isbn})
        return GoodRow(line, book, notes, tuple(name.strip() for name in _split(row["authors"])))
    except ValidationError as error:
        return BadRow(line, "; ".join(_fault(fault) for fault in error.errors()))


def _fault(fault: Mapping[str, Any]) -> str:
    shown = repr(fault["input"])
    if len(shown) > MAX_SHOWN:
        shown = f"{shown[:MAX_SHOWN]}..."
    return f"{fault['loc'][0]} {shown}: {fault['msg'].removeprefix('Value error, ')}"


def _read_isbn(line: int, row: Mapping[str, str]) -> tuple[str | None, tuple[Note, ...]]:
    """Of the column `isbn`, else of `isbn13`; with a note if both are invalid."""
    notes: list[Note] = []
    for column in ("isbn", "isbn13"):
        cell = row.get(column, "")
        try:
            if isbn := parse_isbn_cell(cell):
                return isbn, tuple(notes)
        except ValueError as error:
            kind = f"{column} {error}" if isinstance(error, LostDigits) else column
            notes.append(Note(line, f"{column} {cell[:MAX_SHOWN]!r} {error}; it is left out", kind))
    return None, tuple(notes[:1])  # one is enough to find the row
