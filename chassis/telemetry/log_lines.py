"""The format of log lines, without secrets."""

import re
import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

Line = dict[str, Any]

SLOW = " was slow"
_ACCESS = ("method", "path", "status", "duration_ms", "client", "request_id")
MARGIN = 21  # cells for time and level
SHOWN_ID = 9  # cells; enough to find other lines of the request
MIN_PATH = 12  # cells
LONGEST = 2000  # cells of a line outside of a terminal

_COLORS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

_WORDS = r"(?:passw(?:or)?d|secret|token|api[-_]?key|credential|\botp\b)"
_NAME = re.compile(rf"(?i){_WORDS}|authorization|cookie")
# Keeps the group and hides the rest of the match.
_SECRET = re.compile(
    rf"""(?ix)
    # a header: everything up to its end
    ( (?:authorization|cookie) (?: ["']?\s*[=:]\s* | ["'],\s* ) b?["']? ) [^"'\r\n]+
    # a name that holds such a word, and its value
    | ( {_WORDS}[\w-]{{0,40}} (?: ["']?\s*[=:]\s* | ["'],\s* ) b? )
      (?: "[^"]*" | '[^']*' | [^\s"'&,;)}}\]]+ )
    # an API key, wherever it is
    | ( _key_ ) [0-9A-Za-z]{{71}}
    # the password in a URL
    | ( :// [^\s/:@]{{0,100}} : ) [^\s/@]+ (?=@)
    # what MariaDB quotes of a row
    | ( Duplicate\ entry\ | value:\  ) '.*?' (?=\ for\ (?:key|column))
    """
)


def hide_secrets(text: str) -> str:
    """`password=hunter2` becomes `password=***`."""
    return _SECRET.sub(lambda match: f"{match[match.lastindex or 0]}***", text)


def is_secret(name: str) -> bool:
    return _NAME.search(name) is not None


def hide_secret_fields(fields: Line) -> Line:
    return {name: "***" if is_secret(name) else _hide(v) for name, v in fields.items()}


def _hide(value: Any) -> Any:
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, list):
        return [_hide(one) for one in value]
    if isinstance(value, int | float | None):
        return value
    return hide_secrets(str(value))


def render_json(line: Line) -> bytes:
    return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)


def render_console(line: Line, columns: int | None = None) -> bytes:
    """For people; a request is one line on a terminal with `columns`."""
    rest = dict(line)
    moment, level = rest.pop("time")[11:23], rest.pop("level")
    message, exception = _printable(rest.pop("message")), rest.pop("exception", None)
    if "request_id" in rest:
        rest["request_id"] = _shortened(_printable(rest["request_id"]), SHOWN_ID)
    separator = ""
    if rest.keys() >= {*_ACCESS}:
        message = _access(rest, message.endswith(SLOW), (columns or LONGEST) - MARGIN)
        separator = f"\n{' ' * (MARGIN - 1)}"  # the times of a slow request
    fields = "".join(f" {_dim(f'{name}=')}{_printable(v)}" for name, v in rest.items())
    fields = fields and separator + fields
    color = _COLORS.get(level, "0")
    text = f"{_dim(moment)} \x1b[{color}m{level:<7}\x1b[0m {message}{fields}\n"
    return (text + (f"{exception}\n" if exception else "")).encode(errors="backslashreplace")


def _access(fields: Line, slow: bool, width: int) -> str:
    """The message of a request; removes its parts from `fields`."""
    method, path, status, ms, client, id = (fields.pop(name) for name in _ACCESS)
    start = f"{_printable(method)} "
    end = f" {status} {ms:.{1 if ms < 100 else 0}f} ms{SLOW if slow else ''}"
    parts = [f"  {_printable(value)}" for value in (client, id) if value]
    # Without room for all, the client's address is left out first: an IPv6 address is long.
    while parts and width - _cells("".join([start, end, *parts])) < MIN_PATH:
        del parts[0]
    origin = "".join(parts)
    room = max(MIN_PATH, width - _cells(start + end + origin))
    return f"{start}{_shortened(_printable(path), room)}{end}{_dim(origin)}"


def _shortened(text: str, cells: int) -> str:
    if _cells(text) <= cells:
        return text
    while _cells(text) >= cells:
        text = text[: min(cells, len(text)) - 1]
    return f"{text}…"


def _cells(text: str) -> int:
    """Width on a terminal, where a Han character is as wide as two letters."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def _printable(value: Any) -> str:
    """Without control characters: a path may contain escape sequences of a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def timestamp(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
