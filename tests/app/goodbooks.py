"""Small files in the goodbooks format."""

import csv
from pathlib import Path
from typing import Any

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


def write_goodbooks(path: Path, *rows: dict[str, Any]) -> Path:
    """What a row leaves out is a good book's, with an id and a title of its own."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(rows, 1):
            writer.writerow(
                {
                    "goodreads_book_id": number,
                    "isbn": "",
                    "authors": "Mary Shelley",
                    "original_publication_year": "1818.0",
                    "title": f"Book {number}",
                    "language_code": "eng",
                    "average_rating": "4.12",
                    "ratings_count": "1000",
                }
                | row
            )
    return path
