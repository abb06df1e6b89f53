"""Writes a complete response in one piece: one system call instead of two."""

from collections.abc import Callable, Iterable

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

CONTROLS = bytes({*range(32), 127} - {*b"\t"})
BODILESS = (204, 304)

CloseAfter = Callable[[RequestResponseCycle], None]


def in_one_piece(cycle: RequestResponseCycle, send: Send, close_after: CloseAfter) -> Send:
    """A `send` that delays the head of a response until its first body message.

    Calls `close_after` before the response to a request with a body that was not read.
    """
    start: Message | None = None

    async def send_in_one_piece(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and not cycle.response_started:
            start = message
            return
        held, start = start, None
        if held is not None:
            if cycle.more_body:
                close_after(cycle)
            whole = not (message.get("more_body") or cycle.flow.write_paused or cycle.disconnected)
            body = message.get("body", b"")
            if whole and write_whole(cycle, held["status"], held.get("headers", ()), body):
                return
            await send(held)
        await send(message)

    return send_in_one_piece


def write_whole(
    cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write the response; returns False, having written nothing, if it is left to uvicorn."""
    length = None
    lines = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        if name == b"content-length":
            length = int(value)
        elif name in (b"connection", b"transfer-encoding"):
            return False
        lines.append(b"%b: %b\r\n" % (name, value))
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    head = b"".join(lines)
    if len(head) - len(head.translate(None, CONTROLS)) != 2 * len(lines):
        return False  # a header contains a control character
    if cycle.scope["method"] == "HEAD" or status in BODILESS:
        body = b""
    elif length != len(body):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(head + body)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
