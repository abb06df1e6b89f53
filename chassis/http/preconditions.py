"""Optimistic concurrency: conditional writes by ETag (RFC 9110, 13)."""

from dataclasses import dataclass

from chassis.errors import PreconditionFailed
from chassis.http.etag import Tags


@dataclass(frozen=True)
class Preconditions:
    """`If-Match` and `If-None-Match` of an unsafe request; false if it has neither.

    A service calls `check` in the transaction, after it has locked the rows that it changes and
    after all other checks, so that nothing changes between the check and the write.
    See docs/changes.md.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def check(self, current: str | None) -> None:
        """Raises PreconditionFailed; `current`: the ETag that GET returns, None if it is a 404."""
        if self.if_match is not None and not self.if_match.match(current):
            raise PreconditionFailed(CHANGED if current else MISSING)
        if self.if_none_match is not None and self.if_none_match.match(current):
            raise PreconditionFailed(EXCLUDED)


CHANGED = "It has changed since it was read; read it again, then repeat the change"
MISSING = "It does not exist, and If-Match requires that it does"
EXCLUDED = "If-None-Match excludes the current version"
UNCONDITIONAL = Preconditions()
