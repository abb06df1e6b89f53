"""Parts of a file (RFC 9110, section 14)."""

import re

_ONE = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{0,15})|-([0-9]{1,15}))")


class Unsatisfiable(ValueError):
    """It begins behind the end."""


def read_range(header: str | None, size: int) -> range | None:
    """Which bytes of so many are wanted.

    None is all of them: also for several parts, for what is no range, and for other units, which a
    server may leave unheard. Raises Unsatisfiable.
    """
    match = _ONE.fullmatch((header or "").strip())
    if match is None:
        return None
    first, last, final = match.groups()
    if final is not None:
        start, stop = max(0, size - int(final)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if start < size and stop <= start:
            return None
    if start >= size:
        raise Unsatisfiable
    return range(start, stop)
