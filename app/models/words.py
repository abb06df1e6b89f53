"""Full-text search by whole words, the same on MariaDB (FULLTEXT) and SQLite (FTS5)."""

from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.models.book import Book
from app.tokenizer import RULE, tokenize

MAX_PHRASE = 100  # words; MariaDB refuses phrases of more than 128


class SearchWords(TypedDict):
    """What a book is found by, and the rule that has split it: columns of `books`."""

    words: str
    words_rule: int


def search_words(title: str, authors: Iterable[str]) -> SearchWords:
    return SearchWords(words=" ".join(tokenize(title, *authors)), words_rule=RULE)


class _HasWords(FunctionElement[bool]):
    """Arguments: the words column, the id, the query for MariaDB, the query for SQLite."""

    inherit_cache = True


def has_words() -> ColumnElement[bool]:
    """True for the books whose title and author names hold all the phrases of `search`."""
    return _HasWords(Book.words, Book.id, bindparam("required_words"), bindparam("quoted_words"))


def search(phrases: Iterable[list[str]]) -> dict[str, str]:
    """The parameters of `has_words`, for one phrase at least."""
    quoted = [f'"{phrase}"' for phrase in dict.fromkeys(_short(phrases))]
    return {
        "required_words": " ".join(f"+{phrase}" for phrase in quoted),
        "quoted_words": " ".join(quoted),
    }


def _short(phrases: Iterable[list[str]]) -> Iterator[str]:
    for words in phrases:
        for start in range(0, len(words), MAX_PHRASE):
            yield " ".join(words[start : start + MAX_PHRASE])


@compiles(_HasWords)
def _match_against(element: _HasWords, compiler: SQLCompiler, **kw: Any) -> str:
    words, _, required, _ = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"MATCH ({words}) AGAINST ({required} IN BOOLEAN MODE)"


@compiles(_HasWords, "sqlite")
def _match_rowid(element: _HasWords, compiler: SQLCompiler, **kw: Any) -> str:
    _, book_id, _, quoted = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{book_id} IN (SELECT rowid FROM book_search WHERE book_search MATCH {quoted})"  # noqa: S608
