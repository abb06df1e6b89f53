"""Which part of a checkout a path belongs to: the list is paths.toml of the newer template."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum

LIST = "chassis/development/upgrade/paths.toml"


class Owner(StrEnum):
    CHASSIS = "chassis"
    MERGED = "merged"
    SAMPLE = "sample"
    SERVICE = "service"
    LOCKS = "locks"


class Ownership:
    def __init__(self, text: str) -> None:
        lists: Mapping[str, Sequence[str]] = tomllib.loads(text)
        self.patterns = [(one, Owner(name)) for name, listed in lists.items() for one in listed]
        # The longest is the most specific, and is tried first.
        self.patterns.sort(key=lambda pattern: len(pattern[0]), reverse=True)

    def of(self, path: str) -> Owner:
        """What no pattern matches is the service's own: the template has nothing there."""
        return dict(self.patterns).get(self.pattern_of(path), Owner.SERVICE)

    def pattern_of(self, path: str) -> str:
        return next((pattern for pattern, _ in self.patterns if _matches(pattern, path)), "")


def _matches(pattern: str, path: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", "[^/]*")
    match = re.match if pattern.endswith("/") else re.fullmatch
    return match(expression, path) is not None
