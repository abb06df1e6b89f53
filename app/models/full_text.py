"""Full-text search for phrases of whole words, the same on MariaDB (FULLTEXT) and SQLite (FTS5)."""

from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    String,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.models.book import Book
from chassis.text.search_words import RULE, tokenize

MAX_PHRASE = 100  # words; MariaDB refuses phrases of more than 128
COMPARED = [f"phrase_{number}" for number in range(8)]  # parameters of `has_phrases`


class SearchWords(TypedDict):
    """Columns of `books`: the indexed words, and the version of the rule that has split them."""

    words: str
    words_rule: int


def search_words(title: str, authors: Iterable[str]) -> SearchWords:
    return SearchWords(words=" ".join(tokenize(title, *authors)), words_rule=RULE)


class _MatchesPhrases(FunctionElement[bool]):
    """Arguments: the words column, the id, the query for MariaDB, the query for SQLite."""

    inherit_cache = True


def matches_phrases() -> ColumnElement[bool]:
    """True for books with all phrases of `phrase_params` in their title and author names."""
    names = ("mariadb_query", "sqlite_query")
    return _MatchesPhrases(Book.words, Book.id, *map(bindparam, names))


def has_phrases() -> ColumnElement[bool]:
    """True for the same books, without the index; its parameters are `compared_params`."""
    blank = literal_column("' '", String)
    # All is ASCII, and bytes are compared in less time than characters.
    words = blank.concat(cast(Book.words, LargeBinary)).concat(blank)
    phrases = (bindparam(name, type_=String) for name in COMPARED)
    return and_(*(func.instr(words, phrase) > literal_column("0") for phrase in phrases))


def compared_params(phrases: Iterable[list[str]]) -> dict[str, str] | None:
    """None if there are too many phrases."""
    distinct = _distinct(phrases)
    if len(distinct) > len(COMPARED):
        return None
    # An empty text is found in any.
    return dict.fromkeys(COMPARED, "") | dict(
        zip(COMPARED, (f" {each} " for each in distinct), strict=False)
    )


def phrase_params(phrases: Iterable[list[str]]) -> dict[str, str]:
    """The parameters of `matches_phrases`; at least one phrase."""
    distinct = _distinct(phrases)
    return {
        # In quotes, a single word would take it twice the time, and memory for each place.
        "mariadb_query": " ".join(f'+"{each}"' if " " in each else f"+{each}" for each in distinct),
        "sqlite_query": " ".join(f'"{each}"' for each in distinct),
    }


def _distinct(phrases: Iterable[list[str]]) -> list[str]:
    """The longest first, as long words are rare: the others are compared with a few rows only."""
    return sorted(dict.fromkeys(_short(phrases)), key=len, reverse=True)


def _short(phrases: Iterable[list[str]]) -> Iterator[str]:
    for words in phrases:
        for start in range(0, len(words), MAX_PHRASE):
            yield " ".join(words[start : start + MAX_PHRASE])


@compiles(_MatchesPhrases)
def _match_against(element: _MatchesPhrases, compiler: SQLCompiler, **kw: Any) -> str:
    words, _, required, _ = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"MATCH ({words}) AGAINST ({required} IN BOOLEAN MODE)"


@compiles(_MatchesPhrases, "sqlite")
def _match_rowid(element: _MatchesPhrases, compiler: SQLCompiler, **kw: Any) -> str:
    _, book_id, _, quoted = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{book_id} IN (SELECT rowid FROM book_search WHERE book_search MATCH {quoted})"  # noqa: S608
