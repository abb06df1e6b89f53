"""The goodbooks CSV format: what each row says about a book, or why it is no use."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationError

from app.isbn import isbn13_of_isbn10
from app.schemas.author import AuthorName
from app.schemas.book import Language, Year


class WrongShape(Exception):
    """The file as a whole is not in this format; nothing of it was read."""


def _year(text: str) -> float | None:
    return float(text) if text else None


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


class GoodbooksRow(BaseModel):
    """The columns that we read, by their names in the file."""

    goodreads_book_id: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
    isbn: Annotated[str | None, BeforeValidator(isbn13_of_isbn10)]
    authors: Annotated[list[AuthorName], BeforeValidator(_names)]
    original_publication_year: Annotated[Year | None, BeforeValidator(_year)]
    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    language_code: Annotated[Language | None, BeforeValidator(lambda text: text or None)]
    average_rating: Annotated[float, Field(ge=0, le=5)]
    ratings_count: Annotated[int, Field(ge=0, le=2**31 - 1)]


class BadRow(NamedTuple):
    line: int
    reason: str


class GoodRow(NamedTuple):
    line: int
    book: GoodbooksRow


def read_goodbooks(path: Path) -> list[GoodRow | BadRow]:
    """Every row of the file in its order. Raises WrongShape, and OSError if it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongShape(f"{path} is not UTF-8 text (byte {error.start})") from None
    lines = io.StringIO(text, newline="").readlines()
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
        # A quote that nobody closed took the next rows along: go on after its first line.
        done = line


def _read_row(line: int, header: list[str], cells: list[str]) -> GoodRow | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"has {len(cells)} cells instead of {len(header)}")
    try:
        return GoodRow(line, GoodbooksRow.model_validate(dict(zip(header, cells, strict=True))))
    except ValidationError as error:
        faults = (f"{e['loc'][0]} {e['input']!r}: {e['msg']}" for e in error.errors())
        return BadRow(line, "; ".join(faults))
