"""The normal form of text, for bodies, queries, imported files and the command line.

Text of every script is accepted and stored in one form: NFC, single spaces, none at the ends.
Refused are control characters, lone surrogates, the two direction overrides, and line breaks in a
single line. The Unicode tables are those of `unicodedata2` and `regex`, for every Python version.
"""

import regex
from unicodedata2 import normalize

_WHITE_AT_START = regex.compile(r"\p{White_Space}*")
_SPACES = regex.compile(r"[\p{Zs}\t]+")
_LINE_BREAK = regex.compile(r"\r\n|[\r\x85\u2028\u2029]")
_SPACE_BEFORE_BREAK = regex.compile(r" +\n")
_VISIBLE = regex.compile(r"[^\p{Default_Ignorable_Code_Point}\p{White_Space}\p{Cf}]")
_OVERRIDES = "\u202d\u202e"
_REFUSED_IN_LINE = regex.compile(rf"[\p{{Cc}}\p{{Cs}}{_OVERRIDES}\u2028\u2029]")
_REFUSED_IN_LINES = regex.compile(rf"[\p{{Cc}}\p{{Cs}}{_OVERRIDES}--[\t\n\r\x85]]", regex.V1)


def clean_line(text: str) -> str:
    """A single line; empty if it has no visible character. Raises ValueError."""
    return _clean(text, _REFUSED_IN_LINE)


def clean_lines(text: str) -> str:
    """Text with line breaks, which become line feeds; tabs become spaces. Raises ValueError."""
    lines: str = _SPACE_BEFORE_BREAK.sub("\n", _clean(text, _REFUSED_IN_LINES))
    return lines


def _clean(text: str, refused: "regex.Pattern[str]") -> str:
    start: int = _WHITE_AT_START.match(text).end()
    end: int = len(text) - _WHITE_AT_START.match(text[:start:-1]).end()
    if found := refused.search(text, start, end):
        raise ValueError(f"holds {_name(found[0])} at position {found.start() + 1}")
    text = _SPACES.sub(" ", _LINE_BREAK.sub("\n", text[start:end]))
    normal: str = normalize("NFC", text)
    return normal if _VISIBLE.search(normal) else ""


def _name(char: str) -> str:
    kind = "the control character"
    if char in "\n\r\x85\u2028\u2029":
        kind = "the line break"
    elif char in _OVERRIDES:
        kind = "the direction override"
    elif "\ud800" <= char <= "\udfff":
        kind = "the lone surrogate"
    return f"{kind} U+{ord(char):04X}"
