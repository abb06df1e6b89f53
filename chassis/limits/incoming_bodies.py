"""Limits for request bodies that are being received: time, number and memory."""

import time
from collections.abc import Callable
from typing import NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from chassis.errors import BodyTimeout, ClientDisconnected, Overloaded
from chassis.limits.settings import RequestSettings
from chassis.tasks.timeout import Timeout

CHUNK_OVERHEAD = 64  # bytes of memory for each chunk besides its content


class IncomingBodies:
    """The bodies that a worker is receiving or holds in memory.

    A request that waits for its body counts neither as in flight nor as working, so slow clients
    take no capacity from others; at most `max_waiting` may wait, and all buffered bodies together
    take at most `memory` bytes. See docs/limits.md.
    """

    def __init__(self, settings: RequestSettings, count: Callable[[str], None]) -> None:
        """`count` is called for each body that is refused."""
        self.timeout = settings.body_timeout
        self.max_waiting = settings.max_in_flight
        self.memory = max(settings.body_memory, settings.max_body)
        self.waiting = 0
        self.size = 0  # bytes of all buffered bodies
        self._count = count

    def refuse(self) -> NoReturn:
        self._count("bodies")
        raise Overloaded("Too many request bodies are being received; try again shortly")


class BufferedBody:
    """The body of one request in memory; its size counts until the `with` block ends."""

    def __init__(self, bodies: IncomingBodies, receive: Receive) -> None:
        self.bodies = bodies
        self._receive = receive
        self._size = 0

    def __enter__(self) -> "BufferedBody":
        return self

    def __exit__(self, *_: object) -> None:
        self.bodies.size -= self._size

    async def read(self, request: Request) -> None:
        """Read all of it; `request` must use our `receive`.

        Raises BodyTimeout, ClientDisconnected and Overloaded.
        """
        bodies = self.bodies
        if bodies.waiting >= bodies.max_waiting:
            bodies.refuse()
        bodies.waiting += 1
        try:
            with Timeout(bodies.timeout):
                await request.body()
        except TimeoutError:
            raise BodyTimeout(bodies.timeout) from None
        except ClientDisconnect:
            raise ClientDisconnected from None
        finally:
            bodies.waiting -= 1

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b"")) + CHUNK_OVERHEAD
        self._size += size
        self.bodies.size += size
        if self.bodies.size > self.bodies.memory:
            self.bodies.refuse()
        return message


def with_timeout(receive: Receive, timeout: float) -> Receive:
    """A `receive` for a streamed body; raises BodyTimeout `timeout` s after its first call."""
    end: float | None = None

    async def receive_with_timeout() -> Message:
        nonlocal end
        end = end or time.monotonic() + timeout
        try:
            with Timeout(max(0.0, end - time.monotonic())):
                return await receive()
        except TimeoutError:
            raise BodyTimeout(timeout) from None

    return receive_with_timeout
