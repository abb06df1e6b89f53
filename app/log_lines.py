"""What a line of the log looks like, and what is never in it."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

Line = dict[str, Any]

_COLORS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

# What follows such a name, and the password in a URL.
_SECRET = re.compile(
    r"""(?ix)
    ( (?:password|passwd|secret|token|api[-_]?key|authorization|cookie) ["']? \s* [=:] \s* ["']?
      (?:bearer\s+|basic\s+)? ) [^\s"'&,;)}]+
    | (?<=://) ([^\s/:@]*:) [^\s/@]+ (?=@)
    """
)


def hide_secrets(text: str) -> str:
    """`password=hunter2` becomes `password=***`, wherever a library has written it."""
    return _SECRET.sub(lambda match: (match[1] or match[2]) + "***", text)


def render_json(line: Line) -> bytes:
    return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)


def render_console(line: Line) -> bytes:
    rest = dict(line)
    moment, level = rest.pop("time")[11:23], rest.pop("level")
    # A path may hold escape sequences, which a terminal would obey.
    message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in rest.pop("message"))
    exception = rest.pop("exception", None)
    fields = "".join(f" \x1b[2m{name}=\x1b[0m{value}" for name, value in rest.items())
    color = _COLORS.get(level, "0")
    text = f"\x1b[2m{moment}\x1b[0m \x1b[{color}m{level:<7}\x1b[0m {message}{fields}\n"
    return (text + (f"{exception}\n" if exception else "")).encode(errors="backslashreplace")


def timestamp(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
