"""How books are found: by walks along the index of the sort, or by the full-text index."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.services import book_search


@contextmanager
def walks(first: int, longest: int) -> Iterator[None]:
    """Of so many rows, so that a few hundred books are enough for a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_search, "FIRST_WALK", first)
        patch.setattr(book_search, "LONGEST_WALK", longest)
        with nothing_remembered():
            yield


@contextmanager
def index_only() -> Iterator[None]:
    with walks(0, 0):
        yield


@contextmanager
def nothing_remembered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_search, "memory", book_search.MatchMemory())
        yield
