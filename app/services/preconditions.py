"""Optimistic concurrency: a change is refused when its author has not seen the last one."""

from pydantic import BaseModel

from app.errors import PreconditionFailed
from app.etag import etag_of

# The tags of what the client would change; None if it did not say (no `If-Match`, or `*`).
ExpectedTags = frozenset[str] | None


def require_match(current: BaseModel, expected: frozenset[str]) -> None:
    if etag_of(current) not in expected:
        raise PreconditionFailed("It has changed meanwhile; read it again, then repeat the change")
