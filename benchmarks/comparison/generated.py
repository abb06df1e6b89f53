"""A catalogue in the goodbooks format for those without the file; the same in each run."""

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOOKS = 100_000
AUTHORS = 20_000
COLUMNS = (
    "goodreads_book_id",
    "isbn",
    "authors",
    "original_publication_year",
    "title",
    "language_code",
    "average_rating",
    "ratings_count",
)
FIRST = ("Amber", "Bitter", "Broken", "Crimson", "Distant", "Golden", "Hidden", "Iron", "Quiet")
SECOND = ("Bridge", "Castle", "Forest", "Garden", "Harbour", "House", "Island", "Letter", "River")
SYLLABLES = (
    *("ba", "del", "fi", "gor", "ha", "ken", "lo"),
    *("mar", "ni", "ona", "pe", "ras", "tu", "vel"),
)
LANGUAGES = ("eng", "eng", "eng", "en-US", "fre", "ger", "spa", "")


def write(path: Path, books: int = BOOKS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(books))
    return path


def rows(books: int) -> Iterator[tuple[Any, ...]]:
    """Values of COLUMNS."""
    chance = random.Random(7)  # noqa: S311 - the same books each time
    for number in range(1, books + 1):
        names = {author(chance.randrange(AUTHORS)) for _ in range(chance.choice((1, 1, 1, 2, 3)))}
        words = (chance.choice(FIRST), chance.choice(SECOND))
        title = f"The {' '.join(words)} of {_word(chance.randrange(38_416)).title()}"
        year, rating = chance.randint(1850, 2025), f"{chance.uniform(2.5, 4.8):.2f}"
        language = chance.choice(LANGUAGES)
        yield (
            *(number, "", ",".join(sorted(names)), f"{year}.0", title, language),
            *(rating, int(chance.paretovariate(0.8) * 10)),
        )


def author(number: int) -> str:
    return f"{_word(number % 196).title()} {_word(number // 196 + 196).title()}"


def _word(number: int) -> str:
    """Each number has its own, of syllables as digits."""
    rest, last = divmod(number, len(SYLLABLES))
    return (_word(rest) if rest else "") + SYLLABLES[last]
