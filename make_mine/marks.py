"""Marked lines: blocks between `# WORD: begin` and `# WORD: end`, and lines that end in `# WORD`.

In Markdown they are comments: `<!-- WORD: begin -->`, `<!-- WORD: end -->` and `<!-- WORD -->`.
"""

import re

from make_mine.errors import Refused


def without(word: str, text: str) -> str:
    """The text without its marked lines, and without doubled blank lines."""
    if f"# {word}" not in text and f"<!-- {word}" not in text:
        return text
    begin, end, line = (
        re.compile(rf"(?:^|\s)(?:#|<!--) {word}{kind}(?: -->)?$")
        for kind in (": begin", ": end", "")
    )
    kept: list[str] = []
    block = 0  # the number of its first line
    is_gap = False  # something was left out here
    for number, each in enumerate(text.splitlines(), 1):
        if block:
            if end.search(each):
                block, is_gap = 0, True
        elif begin.search(each):
            block = number
        elif line.search(each):
            is_gap = True
        else:
            if is_gap and not each.strip():
                _drop_blank_end(kept)
            kept.append(each)
            is_gap = False
    if block:
        raise Refused(f"line {block}: there is no `{word}: end` after this `{word}: begin`")
    if is_gap:
        _drop_blank_end(kept)
    return "".join(f"{each}\n" for each in kept)


def _drop_blank_end(lines: list[str]) -> None:
    while lines and not lines[-1].strip():
        lines.pop()
