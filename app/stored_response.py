"""An answer as bytes, as it lies in the cache, and back."""

import struct

from fastapi import Response

from app.etag import etag

Headers = list[tuple[bytes, bytes]]
_LENGTH = struct.Struct(">I")


class BytesResponse(Response):
    """An answer whose headers are bytes already."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None


def pack(response: Response) -> bytes:
    body = bytes(response.body)
    lines = [etag(body).encode()]
    for name, value in response.raw_headers:
        if name != b"content-length":
            lines += [name, value]
    head = b"\n".join(lines)
    return _LENGTH.pack(len(head)) + head + body


def unpack(payload: bytes) -> tuple[bytes, Headers, bytes]:
    """Its ETag, its headers but for the length, its body."""
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    tag, *lines = payload[_LENGTH.size : end].split(b"\n")
    return tag, list(zip(lines[::2], lines[1::2], strict=True)), payload[end:]
