"""The Gunicorn worker, which drains its connections before it stops."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from chassis.server.http_protocol import HttpProtocol
from chassis.server.metrics import WorkerMetrics
from chassis.telemetry.logs import configure_logs
from chassis.telemetry.settings import read_log_settings

DRAIN = 1.5  # s; for clients to leave after a response with `Connection: close`
# Running requests are cancelled this much earlier than Gunicorn sends SIGKILL, so that the lifespan
# can close its resources.
MARGIN = 5  # s
MAX_UNSENT = 131_072  # bytes of a connection, which inherits it from the listener

log = logging.getLogger("app.worker")


class DrainingServer(Server):
    """Drains connections before it shuts down (docs/decisions/0003-draining.md).

    uvicorn closes idle keep-alive connections at once, also those on which a request is on its way.
    This server stops accepting, sends `Connection: close` with every response, and waits up to
    DRAIN for the clients to leave.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state["draining"] = True
        limit = self.config.limit_max_requests
        if limit is not None and self.server_state.total_requests >= limit:
            self.lifespan.state["metrics"].of(WorkerMetrics).worker_recycles.inc()
        alive = asyncio.create_task(self._notify())
        waiting = [client for listener in sockets or [] for client in _accept_all(listener)]
        for server in self.servers:
            server.close()  # uvloop closes the file descriptors of `sockets` as well
        for client in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, client)
        self.server_state.default_headers.append((b"connection", b"close"))
        log.info("Draining %d connections", len(self.server_state.connections))
        deadline = time.monotonic() + DRAIN
        while self.server_state.connections and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

        await super().shutdown()
        alive.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own notes the signal and raises it again after the shutdown: that would end
        # this process before its exit handlers, and Gunicorn would report a killed worker.
        self.force_exit |= self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def _notify(self) -> None:
        """Tell Gunicorn that the worker is alive, which uvicorn does not during a shutdown."""
        while self.config.callback_notify is not None:
            await self.config.callback_notify()
            await asyncio.sleep(1)

    def _protocol(self) -> asyncio.Protocol:
        factory: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = factory(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections in the backlog, which closing the listener would reset."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        yield client


def limit_unsent(listener: socket.socket) -> None:
    """Bound the send buffer in the kernel for clients that do not read: else megabytes."""
    with suppress(AttributeError, OSError):  # this is no TCP, or not of Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker has no types
    CONFIG_KWARGS = {
        "loop": "uvloop",
        "http": HttpProtocol,
        "access_log": False,
        "server_header": False,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class turns this off, but the handler is that of the root logger.
        logging.getLogger("uvicorn.error").propagate = True
        self.config.timeout_graceful_shutdown = max(1, self.cfg.graceful_timeout - MARGIN)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self.config)
        # Gunicorn's quick stop, which the base class ignores.
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None
        )
        listeners = [listener.sock for listener in self.sockets]
        for listener in listeners:
            limit_unsent(listener)
        await server.serve(sockets=listeners)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def callback_notify(self) -> None:
        self.notify()
        if os.getppid() != self.ppid:
            self.log.error("The master is gone: this worker stops")
            os.kill(os.getpid(), signal.SIGTERM)


class WorkerLogger(Logger):  # type: ignore[misc]  # Gunicorn has no types
    def setup(self, cfg: Config) -> None:
        configure_logs(read_log_settings())
