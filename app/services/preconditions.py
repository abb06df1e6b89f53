"""Optimistic concurrency: a change is refused when its author has not seen the last one."""

from dataclasses import dataclass

from app.errors import PreconditionFailed
from app.etag import Tags


@dataclass(frozen=True)
class Preconditions:
    """`If-Match` and `If-None-Match` of an unsafe request (RFC 9110, 13); false if it has neither.

    A service checks them in the transaction, after it has locked what the request changes and has
    done all other checks of the request, so that nothing changes between the check and the effect.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def check(self, current: str | None) -> None:
        """Raises PreconditionFailed; `current`: the ETag that GET shows, None if it has nothing."""
        if self.if_match is not None and not self.if_match.match(current):
            raise PreconditionFailed(CHANGED if current else MISSING)
        if self.if_none_match is not None and self.if_none_match.match(current):
            raise PreconditionFailed(EXCLUDED)


CHANGED = "It has changed meanwhile; read it again, then repeat the change"
MISSING = "It does not exist, and If-Match wants it to"
EXCLUDED = "What is there now is excluded by If-None-Match"
UNCONDITIONAL = Preconditions()
