"""Tags of cached books and lists of books: what a write invalidates, and no more.

A list belongs to one set of books that holds all it can show: those of an author, those in a
language, those that a search may find, or all. A change of a book invalidates the lists of every
set that the book is in, or was in before. docs/caching.md has the argument.
"""

from collections.abc import Iterable, Mapping
from zlib import crc32

ALL_BOOKS = "books"
FOUND_BOOKS = "found-books"
GROUPS = 256  # of authors, and of languages: requests cannot create more tags


def tag_of_list(query: Mapping[str, str]) -> str:
    if "q" in query:
        return FOUND_BOOKS
    if "author_id" in query:
        return _author_group(query["author_id"])
    if "language" in query:
        return _language_group(query["language"])
    return ALL_BOOKS


def tags_of_book(book_id: int, language: str | None, author_ids: Iterable[int]) -> set[str]:
    """Tags of all that shows this book, while it has this language and these authors."""
    tags = {f"book:{book_id}", ALL_BOOKS, FOUND_BOOKS}
    tags.update(_author_group(str(author_id)) for author_id in author_ids)
    if language is not None:
        tags.add(_language_group(language))
    return tags


def _author_group(author_id: str) -> str:
    return f"books-by:{crc32(author_id.encode()) % GROUPS}"


def _language_group(language: str) -> str:
    return f"books-in:{crc32(language.encode()) % GROUPS}"
