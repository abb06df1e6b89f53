"""Routes that will be removed, and how responses and the OpenAPI document announce it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Deprecation:
    """When a route is deprecated and when it may be removed: each at 0:00 UTC of that day.

    Sent as `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and `Link`. See docs/contract.md.
    """

    since: date
    sunset: date | None = None
    link: str | None = None  # of a page about what to use instead

    def __post_init__(self) -> None:
        if self.sunset is not None and self.sunset < self.since:
            raise ValueError(f"The sunset {self.sunset} is before the deprecation {self.since}")

    @property
    def fields(self) -> dict[str, str]:
        """The header fields of each response."""
        fields = {"Deprecation": f"@{_midnight(self.since).timestamp():.0f}"}
        if self.sunset is not None:
            fields["Sunset"] = format_datetime(_midnight(self.sunset), usegmt=True)
        if self.link is not None:
            kinds = "deprecation" if self.sunset is None else "deprecation sunset"
            fields["Link"] = f'<{self.link}>; rel="{kinds}"; type="text/html"'
        return fields

    @property
    def extension(self) -> dict[str, str]:
        """Of the operation: `x-sunset` is what tools that compare documents look for."""
        return {} if self.sunset is None else {"x-sunset": f"{self.sunset}"}

    @property
    def documented(self) -> dict[str, Any]:
        """The header fields as a response of OpenAPI has them."""
        return {
            name: {"description": _MEANING[name], "schema": {"type": "string"}, "example": value}
            for name, value in self.fields.items()
        }


def deprecated(
    since: date, sunset: date | None = None, link: str | None = None
) -> Callable[[F], F]:
    """Announce that the route of this handler is or will be deprecated."""
    deprecation = Deprecation(since, sunset, link)

    def mark(handler: F) -> F:
        handler.deprecation = deprecation  # type: ignore[attr-defined]
        return handler

    return mark


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


_MEANING = {
    "Deprecation": "Since when it is deprecated (RFC 9745), in seconds since 1970",
    "Sunset": "When it may be removed (RFC 8594)",
    "Link": "What to use instead",
}
