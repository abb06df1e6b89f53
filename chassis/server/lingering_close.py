"""Closes a connection so that the client still receives the response (RFC 9112, section 9.6)."""

import asyncio
from collections.abc import Callable

LINGER = 2  # s
MAX_DISCARDED = 1_048_576  # bytes


class LingeringTransport:
    """The part of a transport that uvicorn's cycle uses, with another `close`."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class DiscardingProtocol(asyncio.Protocol):
    """Discards what the client sends after the response, up to LINGER and MAX_DISCARDED."""

    def __init__(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """`protocol` gets all other events."""
        self.protocol = protocol
        self.transport = transport
        self.left = MAX_DISCARDED
        self.timer = asyncio.get_running_loop().call_later(LINGER, transport.close)

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            self.transport.close()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.timer.cancel()
        self.protocol.connection_lost(error)
