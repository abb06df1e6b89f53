import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Literal, NamedTuple

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from chassis.redis.metrics import RedisMetrics
from chassis.redis.server import NOT_PRIMARY, LocatedConnection, RedisServer
from chassis.request_context import current_request
from chassis.tasks.background import background
from chassis.tasks.timeout import Timeout
from chassis.telemetry.metrics import Metrics
from chassis.telemetry.tracing import Tracing

RECONNECT_DELAY = 0.5  # s
WARNING_INTERVAL = 60  # s; between two warnings that a server is full
MAX_BATCH = 500  # commands in one write

ServerName = Literal["redis", "queue"]
NAMES = {"redis": "Redis", "queue": "The queue"}  # in the log

log = logging.getLogger("app.redis")

# Resolves to the reply or to the error in its place: an exception that is set on a future
# nobody awaits would be logged by asyncio.
Reply = asyncio.Future[Any]


class ServerConnection:
    """Lives from a connect until the loss; `run_id` identifies one start of the server."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id


class PendingCommand(NamedTuple):
    command: tuple[Any, ...]
    reply: Reply
    queued_at: float


class SharedConnection:
    """Sends the commands of concurrent requests in batches over one connection.

    Reading and writing a socket costs more than most commands do. So a command waits until the
    replies to the batch before have arrived, and is sent in one write with all that were queued
    meanwhile (implicit pipelining, as in Lettuce). Blocking commands, such as BLPOP, must not be
    sent here. A reply takes at most `timeout` s; while the server is unreachable, commands fail at
    once and `run` tries to reconnect. docs/decisions/0008 has the measurements.
    """

    def __init__(self, server: RedisServer, metrics: Metrics, name: ServerName) -> None:
        # One timeout for a whole batch.
        self.pool = ConnectionPool(**{**server.options, "socket_timeout": None})
        self.server = server
        self.timeout = server.settings.timeout
        self.metrics = metrics.of(RedisMetrics)
        self.name = NAMES[name]
        self.refused = self.metrics.redis_refused_writes[name]
        self._warn_at = 0.0
        self.tracing = Tracing()
        self.connection: ServerConnection | None = None
        self._failure: Exception | None = None
        self._is_replaced = False
        self._queue: list[PendingCommand] = []
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def send(self, *command: Any) -> Reply:
        """Queue a command; `receive` awaits the reply, which may also be ignored."""
        reply = self._loop.create_future()
        if self._failure is not None:
            reply.set_result(self._failure)
            self.metrics.redis_error(command[0])
        else:
            if not self._queue:
                self._wake.set()
            self._queue.append(PendingCommand(command, reply, time.perf_counter()))
        return reply

    async def receive(self, reply: Reply) -> Any:
        """Raises RedisError."""
        start = time.perf_counter()
        try:
            value = await reply
        finally:
            if (request := current_request.get()) is not None:
                request.add_time("cache", time.perf_counter() - start)
        if isinstance(value, Exception):
            raise value
        return value

    def call(self, *command: Any) -> Awaitable[Any]:
        """Queue a command; to await the result raises RedisError."""
        reply = self.receive(self.send(*command))
        return self._traced(command[0], reply) if self.tracing.on else reply

    async def _traced(self, name: str, reply: Awaitable[Any]) -> Any:
        with self.tracing.span("redis", name):
            return await reply

    async def run(self) -> None:
        """Connect and send what is queued; reconnect whenever the connection is lost."""
        while True:
            connection: AbstractConnection = self.pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._connect(connection)
                async with self._watching(connection):
                    await self._send_batches(connection)
            except Exception as error:
                if not isinstance(error, RedisError | OSError | TimeoutError):
                    log.exception("Unexpected error of the connection to Redis")
                was_cut = self.connection is not None and not isinstance(error, TimeoutError)
                self._fail_queued(error)
            finally:
                self.connection = None
                await connection.disconnect(nowait=True)
            if not was_cut:
                await asyncio.sleep(RECONNECT_DELAY)

    async def _connect(self, connection: AbstractConnection) -> None:
        with Timeout(self.timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("INFO")
            info = (await connection.read_response(timeout=math.inf)).decode()
        run_id, role = (re.search(rf"^{name}:(\w+)", info, re.M) for name in ("run_id", "role"))
        if run_id is None:
            raise RedisError("INFO names no run_id")
        if role is not None and role[1] == "slave":  # it may lack the last writes
            raise RedisError("this server is a replica")
        if self._failure is not None:
            log.info("%s is reachable again", self.name)
        self._is_replaced = False
        self.server.note(run_id[1])
        self._failure, self.connection = None, ServerConnection(run_id[1])

    def _watching(self, connection: AbstractConnection) -> AbstractAsyncContextManager[None]:
        if isinstance(connection, LocatedConnection) and self.server.is_watched:
            return background(self._watch(connection), "watch")
        return nullcontext()

    async def _watch(self, connection: LocatedConnection) -> None:
        """Leave a primary that was replaced though it still responds."""
        await self.server.until_replaced((connection.host, connection.port))
        self._is_replaced = True
        self._wake.set()

    async def _send_batches(self, connection: AbstractConnection) -> None:
        while not self._is_replaced:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
            try:
                # They may have waited as long for the batch before.
                with Timeout(self.timeout / 2):
                    await self._send_batch(connection, batch)
            except BaseException:
                self._queue[:0] = batch  # those without a reply get the error
                raise
        raise Unreachable("another server has become the primary")

    async def _send_batch(
        self, connection: AbstractConnection, batch: list[PendingCommand]
    ) -> None:
        packed = b"".join([pack_command(pending.command) for pending in batch])
        await connection.send_packed_command(packed, check_health=False)
        for command, reply, queued_at in batch:
            try:
                value = await connection.read_response(timeout=math.inf)
            except NOT_PRIMARY as error:
                raise Unreachable(f"this server is not the primary ({error})") from error
            except ResponseError as error:  # of this command; the connection is intact
                value = error
                self.metrics.redis_error(command[0])
                if isinstance(error, OutOfMemoryError):
                    self._count_refused_write()
            if not reply.done():  # else its request was cancelled
                reply.set_result(value)
            self.metrics.observe_redis(command[0], time.perf_counter() - queued_at)

    def _count_refused_write(self) -> None:
        self.refused.inc()
        if time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + WARNING_INTERVAL
            log.warning("%s is full and refuses writes", self.name)

    def _fail_queued(self, error: Exception) -> None:
        reason = str(error) or f"no reply within {self.timeout:g} s"
        if self._failure is None:
            log.warning("%s is unreachable: %s", self.name, reason)
        self._failure = Unreachable(reason)
        queue, self._queue = self._queue, []
        for command, reply, queued_at in queue:
            if not reply.done():
                reply.set_result(self._failure)
                self.metrics.redis_error(command[0])
                self.metrics.observe_redis(command[0], time.perf_counter() - queued_at)


@asynccontextmanager
async def open_shared_connection(
    server: RedisServer, metrics: Metrics, name: ServerName = "redis"
) -> AsyncIterator[SharedConnection]:
    shared = SharedConnection(server, metrics, name)
    async with background(shared.run(), name):
        yield shared
