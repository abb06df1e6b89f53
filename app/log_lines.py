"""What a line of the log looks like, and what is never in it."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

Line = dict[str, Any]

_COLORS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

_WORDS = r"(?:passw(?:or)?d|secret|token|api[-_]?key|credential)"
_NAME = re.compile(rf"(?i){_WORDS}|authorization|cookie")
# Group 1 stays, what comes after it is hidden.
_SECRET = re.compile(
    rf"""(?ix)
    # a header: everything up to its end
    ( (?:authorization|cookie) (?: ["']?\s*[=:]\s* | ["'],\s* ) b?["']? ) [^"'\r\n]+
    # a name that holds such a word, and its value
    | ( {_WORDS}[\w-]{{0,40}} (?: ["']?\s*[=:]\s* | ["'],\s* ) b? )
      (?: "[^"]*" | '[^']*' | [^\s"'&,;)}}\]]+ )
    # the password in a URL
    | ( :// [^\s/:@]{{0,100}} : ) [^\s/@]+ (?=@)
    # what MariaDB quotes of a row
    | ( Duplicate\ entry\ | value:\  ) '.*?' (?=\ for\ (?:key|column))
    """
)


def hide_secrets(text: str) -> str:
    """`password=hunter2` becomes `password=***`, wherever a library has written it."""
    return _SECRET.sub(lambda match: f"{match[match.lastindex or 0]}***", text)


def hide_secret_fields(fields: Line) -> Line:
    return {name: "***" if _NAME.search(name) else _hide(v) for name, v in fields.items()}


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


def render_console(line: Line) -> bytes:
    rest = dict(line)
    moment, level = rest.pop("time")[11:23], rest.pop("level")
    message, exception = _printable(rest.pop("message")), rest.pop("exception", None)
    fields = "".join(f" \x1b[2m{name}=\x1b[0m{_printable(v)}" for name, v in rest.items())
    color = _COLORS.get(level, "0")
    text = f"\x1b[2m{moment}\x1b[0m \x1b[{color}m{level:<7}\x1b[0m {message}{fields}\n"
    return (text + (f"{exception}\n" if exception else "")).encode(errors="backslashreplace")


def _printable(value: Any) -> str:
    """A path may hold escape sequences, which a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def timestamp(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
