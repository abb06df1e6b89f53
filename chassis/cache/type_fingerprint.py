"""Fingerprints of types: entries of one schema and release are never read as another."""

from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from chassis.cache.entry import digest


@cache
def adapter_of(type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type)


@cache
def shape(type: Any) -> str:
    schema = adapter_of(type).json_schema(mode="serialization")
    return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode()


@cache
def fingerprint(release: str, type: Any) -> str:
    """Part of an entry's key: a release that changes the schema does not read older entries."""
    return digest(release + shape(type)).hex()
