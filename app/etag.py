"""Entity tags of representations (RFC 9110, 8.8.3)."""

import re
from dataclasses import dataclass
from hashlib import blake2b

from pydantic import BaseModel
from starlette.types import Scope

from app.header_fields import list_field

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def etag(body: bytes) -> str:
    """A strong one: another body, another tag."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def etag_of(model: BaseModel) -> str:
    """The tag of this as the body of an answer."""
    return etag(model.model_dump_json().encode())


@dataclass(frozen=True)
class Tags:
    """The value of If-Match or If-None-Match; `names` is None for `*`, any representation."""

    names: frozenset[str] | None

    def match(self, current: str | None) -> bool:
        """`current`: the tag of the representation, None if there is none."""
        return current is not None and (self.names is None or current in self.names)


def read_etags(field: str) -> Tags:
    """The tags of If-Match or If-None-Match; raises ValueError unless it is a list of such.

    A proxy that compresses an answer makes its tag weak (`W/`), and clients send it back like
    that. Ours still names one representation, so the mark is dropped.
    """
    if field.strip() == "*":
        return Tags(None)
    names = _TAG.findall(field)
    if not names or _TAG.sub("", field).strip(" \t,"):
        raise ValueError("is neither `*` nor a list of entity tags, each in double quotes")
    return Tags(frozenset(names))


def is_known(scope: Scope, current: str) -> bool:
    """Whether If-None-Match names it: what a client has already. Nonsense names nothing."""
    field = list_field(scope, b"if-none-match")
    if field is None:
        return False
    try:
        return read_etags(field).match(current)
    except ValueError:
        return False
