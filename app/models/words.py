"""Full-text search by whole words, the same on MariaDB (FULLTEXT) and SQLite (FTS5)."""

import re
import unicodedata
from typing import Any

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.models.book import Book

# A Han or Kana character is a word of its own: those scripts put no space between words.
_HAN_OR_KANA = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_HAN_OR_KANA}]|[^\\W_{_HAN_OR_KANA}]+")
_LONGEST = 80  # MariaDB leaves out words of more than 84 characters.


def words_of(*texts: str) -> list[str]:
    """The words of `texts`, case and accents folded, in a form that every index keeps.

    Splitting them here, for the stored text and for the query alike, makes both databases
    find the same books. MariaDB drops words of fewer than three characters and those of a list
    (such as "the"), so each one ends in two underscores; it takes no character above U+FFFF for
    a letter, so those are spelt out.
    """
    folded = unicodedata.normalize("NFKD", " ".join(texts)).casefold()
    plain = "".join(
        f" u{ord(c):x} " if c > "\uffff" else c
        for c in unicodedata.normalize("NFKD", folded)
        if not unicodedata.combining(c)
    )
    return [f"{word[:_LONGEST]}__" for word in _WORD.findall(plain)]


class _HasWords(FunctionElement[bool]):
    """Arguments: the words column, the id, the query for MariaDB, the query for SQLite."""

    inherit_cache = True


def has_words() -> ColumnElement[bool]:
    """True for the books whose title and author names hold all the words of `search`."""
    return _HasWords(Book.words, Book.id, bindparam("required_words"), bindparam("quoted_words"))


def search(words: list[str]) -> dict[str, str]:
    """The parameters of `has_words`, for one word at least."""
    return {
        "required_words": " ".join(f"+{word}" for word in words),
        "quoted_words": " ".join(f'"{word}"' for word in words),
    }


@compiles(_HasWords)
def _match_against(element: _HasWords, compiler: SQLCompiler, **kw: Any) -> str:
    words, _, required, _ = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"MATCH ({words}) AGAINST ({required} IN BOOLEAN MODE)"


@compiles(_HasWords, "sqlite")
def _match_rowid(element: _HasWords, compiler: SQLCompiler, **kw: Any) -> str:
    _, book_id, _, quoted = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{book_id} IN (SELECT rowid FROM book_search WHERE book_search MATCH {quoted})"  # noqa: S608
