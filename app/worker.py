"""The Gunicorn worker: uvicorn, which lets go of its clients before it stops."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from app.http_protocol import HttpProtocol
from app.logs import configure_logs
from app.settings import read_settings

# So long clients with an open connection are answered with `Connection: close`.
DRAIN = 1.5  # s
# How much earlier than Gunicorn uvicorn gives up on running requests: Gunicorn's SIGKILL
# would not let the lifespan close anything.
MARGIN = 5  # s

log = logging.getLogger("app.worker")


class DrainingServer(Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, tell every client to go elsewhere, wait for them, then shut down.

        uvicorn closes idle keep-alive connections at once, and with them requests that
        are on their way. A client that was told `Connection: close` sends no more.
        """
        self.lifespan.state["draining"] = True
        limit = self.config.limit_max_requests
        if limit is not None and self.server_state.total_requests >= limit:
            self.lifespan.state["metrics"].worker_recycles.inc()
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
        # The signal has done its work. Raised again, as uvicorn does, it would end this
        # process before its exit handlers, and Gunicorn would report a killed worker.
        self._captured_signals.clear()

    async def _notify(self) -> None:
        """Tell Gunicorn that the worker lives, which uvicorn does no more once it stops."""
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
    """The clients that the kernel has let in already: closing the listener would reset them."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        yield client


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker has no types
    CONFIG_KWARGS = {
        "loop": "uvloop",
        "http": HttpProtocol,
        "access_log": False,
        "server_header": False,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class cuts uvicorn's loggers off from the root logger, which has our handler.
        logging.getLogger("uvicorn.error").propagate = True
        self.config.timeout_graceful_shutdown = max(1, self.cfg.graceful_timeout - MARGIN)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self.config)
        # Gunicorn's quick stop; the base class takes note of it and goes on serving.
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None
        )
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def callback_notify(self) -> None:
        self.notify()
        if os.getppid() != self.ppid:
            self.log.error("The master is gone: this worker stops too")
            os.kill(os.getpid(), signal.SIGTERM)


class WorkerLogger(Logger):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's own lines, in the format of all others."""

    def setup(self, cfg: Config) -> None:
        configure_logs(read_settings().log)
