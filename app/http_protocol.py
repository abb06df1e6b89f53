"""uvicorn's HTTP protocol, which refuses what is too much before it costs a task."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.middleware.request import refusal


class HttpProtocol(HttpToolsProtocol):
    """Under an overload most of a worker's time goes into saying no.

    From the middleware that costs a task, a chain of calls and two system calls; from here it
    costs one. The middleware does it where another server runs the application.
    """

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        state = self.app_state
        workload = state.get("workload")  # none in an application that is not ours
        # A client that sends the next requests ahead of the answers takes the usual way.
        if not workload or self.pipeline or not workload.refuses(scope, len(state["in_flight"])):
            return super()._start_asgi_task(cycle, app)
        headers, body = refusal(scope)
        close = [] if cycle.keep_alive else [(b"connection", b"close")]
        lines = [b"HTTP/1.1 503 Service Unavailable"]
        lines += [b"%b: %b" % pair for pair in (*cycle.default_headers, *headers, *close)]
        if scope["method"] == "HEAD":
            body = b""
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
