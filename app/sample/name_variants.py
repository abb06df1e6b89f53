"""Author names that differ only in form, such as two spaces for one, and so are one author."""

from collections.abc import Iterable, Iterator

from unicodedata2 import normalize

from app.sample.goodbooks import GoodRow, Note
from chassis.text.normal_form import clean_line


class NameVariants:
    """The forms of each author's name in the rows of an import so far."""

    def __init__(self) -> None:
        self._seen: dict[str, list[str]] = {}  # by the stored name; the first form first

    def notes(self, rows: Iterable[GoodRow], stored: set[object]) -> Iterator[Note]:
        """One for each further form of a name. `stored`: names that the database had before."""
        for row in rows:
            for variant in row.authors:
                name = clean_line(variant)
                seen = self._seen.setdefault(name, [name] if name in stored else [variant])
                if variant not in seen:
                    seen.append(variant)
                    text = f"author {_show(variant)} differs only in form from {_show(seen[0])}"
                    yield Note(row.line, f"{text}; both are {name!r}", "author")


def _show(variant: str) -> str:
    """Escaped where the difference would not be visible."""
    return repr(variant) if normalize("NFC", variant) == variant else ascii(variant)
