"""What text is: the one rule for bodies, queries, imported files and the command line.

Text is kept as people write it, in every script, in one form: NFC, single spaces, none at the
ends. Refused are control characters, lone surrogates, the two characters that override the
direction of what follows, and line breaks where there is one line.

The tables are those of `unicodedata2` and `regex`, so that every Python version agrees.
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
    """One line in its normal form, empty if nothing of it can be seen. Raises ValueError."""
    return _clean(text, _REFUSED_IN_LINE)


def clean_lines(text: str) -> str:
    """The same where line breaks may be: all kinds become a line feed, a tab is a space."""
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
