"""uvicorn's HTTP protocol, at less cost for what most requests are: whole answers, and too many."""

from collections.abc import Iterable
from typing import Any

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.middleware.request import refusal

CONTROLS = bytes({*range(32), 127} - {*b"\t"})
BODILESS = (204, 304)


class HttpProtocol(HttpToolsProtocol):
    """Refuses what is too much before it costs a task, and sends an answer in one piece.

    Under an overload most of a worker's time goes into saying no. From the middleware that costs
    a task and a chain of calls; the middleware does it where another server runs the application.
    """

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        state = self.app_state
        workload = state.get("workload")  # none in an application that is not ours
        # A client that sends the next requests ahead of the answers takes the usual way.
        if workload and not self.pipeline and workload.refuses(scope, len(state["in_flight"])):
            headers, body = refusal(scope)
            write_whole(cycle, 503, headers, body)
        else:

            async def run(scope: Any, receive: Any, send: Any) -> None:
                await app(scope, receive, in_one_piece(cycle, send))

            super()._start_asgi_task(cycle, run)


def in_one_piece(cycle: RequestResponseCycle, send: Send) -> Send:
    """A `send` that keeps the head until it is known what follows, as ASGI has it."""
    start: Message | None = None

    async def send_in_one_piece(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and not cycle.response_started:
            start = message
            return
        held, start = start, None
        if held is not None:
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
    """Write the answer, unless there is something about it that uvicorn should look at."""
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
        return False  # a header holds the end of a line
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
