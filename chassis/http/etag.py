"""Entity tags of representations (RFC 9110, 8.8.3)."""

import re
from dataclasses import dataclass
from hashlib import blake2b

from fastapi import Response
from pydantic import BaseModel
from starlette.types import Scope

from chassis.header_fields import list_field

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def etag(body: bytes) -> str:
    """A strong one."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def etag_of(model: BaseModel) -> str:
    """The tag of a response with this model as its body."""
    return etag(model.model_dump_json().encode())


@dataclass(frozen=True)
class Tags:
    """The value of If-Match or If-None-Match; `names` is None for `*`, any representation."""

    names: frozenset[str] | None

    def match(self, current: str | None) -> bool:
        """`current`: the tag of the representation, None if there is none."""
        return current is not None and (self.names is None or current in self.names)


def read_etags(field: str) -> Tags:
    """The value of If-Match or If-None-Match; raises ValueError if it is malformed.

    A proxy that compresses a response makes its tag weak (`W/`), and clients send it back so. It
    still identifies one representation, so the prefix is ignored.
    """
    if field.strip() == "*":
        return Tags(None)
    names = _TAG.findall(field)
    if not names or _TAG.sub("", field).strip(" \t,"):
        raise ValueError("is neither `*` nor a list of entity tags, each in double quotes")
    return Tags(frozenset(names))


def is_listed(tag: str, field: str | None) -> bool:
    """Whether If-None-Match has this tag; a malformed field has none."""
    if field is None:
        return False
    try:
        return read_etags(field).match(tag)
    except ValueError:
        return False


def is_known(scope: Scope, tag: str) -> bool:
    return is_listed(tag, list_field(scope, b"if-none-match"))


def not_modified(scope: Scope, response: Response) -> Response | None:
    """A 304 in place of this response, if the request has its ETag."""
    tag = response.headers.get("ETag")
    if tag is None or response.status_code != 200 or scope["method"] not in ("GET", "HEAD"):
        return None
    if not is_known(scope, tag):
        return None
    headers = {name: response.headers[name] for name in ("ETag", "Cache-Control")}
    return Response(status_code=304, headers=headers, background=response.background)
