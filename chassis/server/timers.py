"""Time limits of a connection."""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress

MIN_READ = 16_384  # bytes that a client has to read in each WEB_WRITE_TIMEOUT


class Timer:
    """Calls back after `seconds`; starting a running timer has no effect."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._handle: asyncio.TimerHandle | None = None

    def start(self, call: Callable[[], None]) -> None:
        # The callback is not an attribute: that would be a reference cycle.
        if self._handle is None:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(self.seconds, self._expire, call)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _expire(self, call: Callable[[], None]) -> None:
        self._handle = None
        call()


class WriteTimer:
    """Resets the connection of a client that reads less than MIN_READ in a period.

    It runs while data is left to send.
    """

    def __init__(self, seconds: float, transport: asyncio.Transport) -> None:
        self._timer = Timer(seconds)
        self._transport = transport
        self._left = 0

    def start(self) -> None:
        self._left = unsent(self._transport)
        self._timer.start(self._look)

    def stop(self) -> None:
        self._timer.stop()

    def _look(self) -> None:
        if self._left - unsent(self._transport) < MIN_READ:
            reset(self._transport)
        else:
            self.start()


def reset(transport: asyncio.Transport) -> None:
    """Abort, and discard the send buffer of the kernel, which would retry for minutes."""
    connection = transport.get_extra_info("socket")
    with suppress(AttributeError, OSError):  # not a TCP socket, or closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that were written and not yet acknowledged by the client; tcp(7), SIOCOUTQ."""
    size = transport.get_write_buffer_size()
    connection = transport.get_extra_info("socket")
    try:
        queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    except (AttributeError, OSError):  # not a TCP socket, or not on Linux
        return size
    (kernel,) = struct.unpack("i", queued)
    return size + int(kernel)
