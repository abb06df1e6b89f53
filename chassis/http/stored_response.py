"""How the cache stores a response: its ETag, headers and body as bytes."""

import struct

from fastapi import Response

from chassis.http.etag import etag

Headers = list[tuple[bytes, bytes]]
_LENGTH = struct.Struct(">I")


def pack(response: Response) -> bytes:
    """Its ETag, its headers but for the length, and its body."""
    body = bytes(response.body)
    lines = [etag(body).encode()]
    for name, value in response.raw_headers:
        if name != b"content-length":
            lines += [name, value]
    head = b"\n".join(lines)
    return _LENGTH.pack(len(head)) + head + body


def unpack(payload: bytes) -> tuple[bytes, Headers, bytes]:
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    tag, *lines = payload[_LENGTH.size : end].split(b"\n")
    return tag, list(zip(lines[::2], lines[1::2], strict=True)), payload[end:]
