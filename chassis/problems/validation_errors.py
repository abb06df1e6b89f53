"""The faults of a request in bounded space: their number and the field names are the client's."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypedDict

import orjson

MAX_FAULTS = 20
MAX_BYTES = 10_000  # of all faults, as JSON
MAX_DISTINCT = 1000  # faults among which duplicates are removed
MAX_NAME = 80  # characters of a field's name
MAX_DEPTH = 10  # names in a `loc`
MAX_MESSAGE = 400  # characters


class Fault(TypedDict):
    loc: list[str | int]
    msg: str
    type: str


class Faults:
    """The faults of one request, as FastAPI lists them."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        first = {(*error["loc"], error["msg"]): error for error in errors[:MAX_DISTINCT]}
        self.count = len(first) + len(errors[MAX_DISTINCT:])
        self.shown = list(_until_full(map(_fault, first.values())))

    def __str__(self) -> str:
        if not self.shown:
            return "The request is not valid"
        fault = self.shown[0]
        first = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        return first if self.count == 1 else f"{self.count} faults; the first: {first}"


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, without lone surrogates, which JSON cannot contain."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text.encode("utf-8", "replace").decode()


def _fault(error: Mapping[str, Any]) -> Fault:
    loc = [part if isinstance(part, int) else cut(str(part), MAX_NAME) for part in error["loc"]]
    return Fault(
        loc=loc[:MAX_DEPTH], msg=cut(error["msg"], MAX_MESSAGE), type=cut(error["type"], MAX_NAME)
    )


def _until_full(faults: Iterable[Fault]) -> Iterable[Fault]:
    left = MAX_BYTES
    for fault in islice(faults, MAX_FAULTS):
        left -= len(orjson.dumps(fault))
        if left < 0:
            return
        yield fault
