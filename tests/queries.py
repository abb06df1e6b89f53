"""Counts and explains the statements that a request sends to the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import event

from chassis.database.engines import Sessions


class Query(NamedTuple):
    statement: str
    parameters: Any


@contextmanager
def recorded(sessions: Sessions) -> Iterator[list[Query]]:
    """The statements of both engines while the block runs."""
    queries: list[Query] = []

    def record(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "cache_epoch" not in statement:  # which the cache reads of its own accord
            queries.append(Query(statement, parameters))

    engines = [maker.kw["bind"].sync_engine for maker in (sessions.read, sessions.write)]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", record)
    try:
        yield queries
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", record)


@contextmanager
def max_queries(sessions: Sessions, most: int) -> Iterator[None]:
    with recorded(sessions) as queries:
        yield
    assert 0 < len(queries) <= most, [query.statement for query in queries]
