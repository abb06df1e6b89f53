"""An authenticator app, written after the RFCs."""

import base64
import hmac
import struct
import time

STEP = 30  # s


def hotp(key: bytes, counter: int) -> str:
    """RFC 4226, 5.3."""
    digest = hmac.digest(key, struct.pack(">Q", counter), "sha1")
    [number] = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 1_000_000:06}"


class App:
    """An authenticator app that has scanned the QR code."""

    def __init__(self, secret: str) -> None:
        self.key = base64.b32decode(secret)

    def code(self, steps: int = 0) -> str:
        return hotp(self.key, int(time.time()) // STEP + steps)

    def wrong(self) -> str:
        """A code of no step near by."""
        near = {self.code(steps) for steps in range(-3, 4)}
        return next(
            code
            for code in ("000000", "111111", *map(str, range(222222, 222230)))
            if code not in near
        )
