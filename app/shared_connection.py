"""One connection for all requests of a worker: what they ask at the same time travels together.

Sending and receiving cost more than the commands do, so requests share them (implicit pipelining,
as Lettuce has it): a command waits for the answers to those before it, then goes out with all
that came in meanwhile. It must not be one that blocks, such as BLPOP.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError, ResponseError

from app.background import background
from app.deadline import Deadline
from app.metrics import Metrics
from app.request_context import current_request
from app.settings import RedisSettings
from app.tracing import Tracing

PAUSE = 0.5  # s; between two attempts to reach a server that is away
MAX_BATCH = 500  # commands that travel together

log = logging.getLogger("app.redis")

# What `send` gives: an answer, or the error in its place. Nobody has to wait for it.
Answer = asyncio.Future[Any]


class Session:
    """From a connect to its loss; `run_id` tells one start of a server from another."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id


class Sent(NamedTuple):
    command: tuple[Any, ...]
    answer: Answer
    at: float


class SharedConnection:
    """Answers within `timeout`; while the server is away it says so at once, and tries again."""

    def __init__(self, pool: ConnectionPool, timeout: float, metrics: Metrics) -> None:
        self.pool = pool
        self.timeout = timeout
        self.metrics = metrics
        self.tracing = Tracing()
        self.session: Session | None = None
        self._lost: Exception | None = None
        self._waiting: list[Sent] = []
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def send(self, *command: Any) -> Answer:
        """Have it sent with what others ask; `receive` waits for the answer."""
        answer = self._loop.create_future()
        if self._lost is not None:
            answer.set_result(self._lost)
            self.metrics.redis_error(command[0])
        else:
            self._waiting.append(Sent(command, answer, time.perf_counter()))
            self._wake.set()
        return answer

    async def receive(self, answer: Answer) -> Any:
        """The answer, or RedisError."""
        start = time.perf_counter()
        try:
            value = await answer
        finally:
            if (request := current_request.get()) is not None:
                request.spend("cache", time.perf_counter() - start)
        if isinstance(value, Exception):
            raise value
        return value

    async def call(self, *command: Any) -> Any:
        if not self.tracing.on:
            return await self.receive(self.send(*command))
        with self.tracing.span("redis", command[0]):
            return await self.receive(self.send(*command))

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost."""
        while True:
            connection: AbstractConnection = self.pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._connect(connection)
                await self._converse(connection)
            except Exception as error:
                if not isinstance(error, RedisError | OSError | TimeoutError):
                    log.exception("The connection to Redis failed in an unknown way")
                was_cut = self.session is not None and not isinstance(error, TimeoutError)
                self._lose(error)
            finally:
                self.session = None
                await connection.disconnect(nowait=True)
            if not was_cut:
                await asyncio.sleep(PAUSE)

    async def _connect(self, connection: AbstractConnection) -> None:
        with Deadline(self.timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("INFO", "server")
            info = await connection.read_response(timeout=math.inf)
        run_id = info.partition(b"run_id:")[2].partition(b"\r")[0].decode()
        if not run_id:
            raise RedisError("INFO names no run_id")
        if self._lost is not None:
            log.info("Redis is back")
        self._lost, self.session = None, Session(run_id)

    async def _converse(self, connection: AbstractConnection) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                # They may have waited as long for the batch before.
                with Deadline(self.timeout / 2):
                    await self._exchange(connection, batch)
            except BaseException:
                self._waiting[:0] = batch  # whoever has no answer yet shall have the error
                raise

    async def _exchange(self, connection: AbstractConnection, batch: list[Sent]) -> None:
        packed = b"".join([pack_command(sent.command) for sent in batch])
        await connection.send_packed_command(packed, check_health=False)
        for command, answer, at in batch:
            try:
                value = await connection.read_response(timeout=math.inf)
            except ResponseError as error:  # of this command; the connection is as good as before
                value = error
                self.metrics.redis_error(command[0])
            if not answer.done():  # else its request was cancelled
                answer.set_result(value)
            self.metrics.observe_redis(command[0], time.perf_counter() - at)

    def _lose(self, error: Exception) -> None:
        reason = str(error) or f"no answer within {self.timeout:g} s"
        if self._lost is None:
            log.warning("Redis is away: %s", reason)
        self._lost = Unreachable(reason)
        waiting, self._waiting = self._waiting, []
        for command, answer, at in waiting:
            if not answer.done():
                answer.set_result(self._lost)
                self.metrics.redis_error(command[0])
                self.metrics.observe_redis(command[0], time.perf_counter() - at)


@asynccontextmanager
async def open_shared_connection(
    settings: RedisSettings, metrics: Metrics
) -> AsyncIterator[SharedConnection]:
    pool = ConnectionPool.from_url(
        settings.url.get_secret_value(),
        **({"password": settings.password.get_secret_value()} if settings.password else {}),
        socket_connect_timeout=settings.timeout,
        socket_timeout=None,  # ours is one for a whole batch
        retry=Retry(NoBackoff(), 0),
    )
    shared = SharedConnection(pool, settings.timeout, metrics)
    async with background(shared.run(), "redis"):
        yield shared
