"""Entity tags of representations (RFC 9110, 8.8.3)."""

from hashlib import blake2b

from pydantic import BaseModel


def etag(body: bytes) -> str:
    """A strong one: another body, another tag."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def etag_of(model: BaseModel) -> str:
    """The tag of this as the body of an answer."""
    return etag(model.model_dump_json().encode())


def read_etags(header: str) -> frozenset[str] | None:
    """Those of If-Match or If-None-Match; None for `*`, which is any.

    A proxy that compresses an answer makes its tag weak (`W/`), and clients send it back like
    that. Ours still names one representation, so the mark is dropped.
    """
    if header.strip() == "*":
        return None
    return frozenset(tag.strip().removeprefix("W/") for tag in header.split(","))
