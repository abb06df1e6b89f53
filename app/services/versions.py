"""Optimistic concurrency: a change is refused when its author has not seen the last one."""

from app.errors import PreconditionFailed
from app.models.base import Versioned

# The versions that the client would change; None if it did not say (no `If-Match`, or `*`).
ExpectedVersions = frozenset[str] | None


def require_version(row: Versioned, expected: ExpectedVersions) -> None:
    if expected is not None and str(row.version) not in expected:
        raise PreconditionFailed(
            f"The current version is {row.version}; read it again, then repeat the change"
        )
