"""What a migration says about a step that does harm while the service runs.

Each names the reason, for the reviewer: `make lint` reports the steps that lack it, and
MariaDB is told not to lock a table without it (see mariadb_ddl).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


@contextmanager
def may_break(reason: str) -> Iterator[None]:
    """Steps that code of the version before could not bear, such as a dropped column."""
    with _allow("breaks", reason):
        yield


@contextmanager
def may_lock(reason: str) -> Iterator[None]:
    """Steps during which nobody can write to the table, as it is small or nobody uses it."""
    with _allow("locks", reason):
        yield


@contextmanager
def _allow(kind: str, reason: str) -> Iterator[None]:
    if not reason.strip():
        raise ValueError("say why this step does no harm")
    token = allowed.set(allowed.get() | {kind})
    try:
        yield
    finally:
        allowed.reset(token)
