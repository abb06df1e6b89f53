"""Where the keys are: the server of a URL, or the primary that it leads to."""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as Unreachable

from chassis.redis.settings import RedisSettings
from chassis.settings.redis_urls import read_redis_url

WATCH_INTERVAL = 1  # s; between two questions to Sentinels

# Replies of a server that is not the primary of these keys, or cannot know whether it is.
NOT_PRIMARY = (MovedError, ReadOnlyError, ClusterDownError)

Address = tuple[str, int]


class Answer(NamedTuple):
    """Of those that name a primary, the highest rank counts."""

    rank: int
    primary: Address


class RedisServer:
    """The server of a URL, for the pool and the shared connection of a worker.

    With `redis+sentinel://` and `redis+cluster://`, each connect first asks the hosts of the URL
    which server is the *primary*. All are asked at once, as one may be silent. Of a cluster, one
    primary has all keys of a service, as their common prefix has a hash tag.
    docs/decisions/0027 has the reasons.
    """

    def __init__(self, settings: RedisSettings, namespace: str) -> None:
        """`namespace`: the prefix of all keys."""
        self.settings = settings
        self.run_id = ""  # of the server that the shared connection was last connected to
        self.is_replaced = False  # by another one, which Sentinels have named
        target = read_redis_url(settings.url.get_secret_value())
        # Of a connection, as a pool makes it.
        self.options = connection_options(target.server, settings)
        # A node of a cluster says that it is no longer the primary. A server that Sentinels have
        # replaced says so ten seconds later.
        self.is_watched = target.kind == "sentinel"
        if self.is_watched:
            name = target.primary
            # The first has the rank, the second the address, which is the newer one in a failover.
            self._questions: list[tuple[str, ...]] = [
                ("SENTINEL", "MASTER", name),
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
            ]
            settings = settings.model_copy(update={"password": None})  # it is of the servers
        else:
            self._questions = [("EXISTS", f"{namespace}:primary")]
        self.nodes = [connection_options(node, settings) for node in target.nodes]
        if self.nodes:
            has_tls = "connection_class" in self.options
            kind = LocatedSSLConnection if has_tls else LocatedConnection
            self.options |= {"connection_class": kind, "server": self}
            del self.options["host"]  # one of the nodes
            self.options.pop("port", None)

    async def find_primary(self) -> Address:
        """Raises RedisError."""
        asking = [asyncio.create_task(self._ask(**node)) for node in self.nodes]
        try:
            await asyncio.wait(asking, timeout=self.settings.timeout / 2)
        finally:
            for task in asking:
                task.cancel()
            results = await asyncio.gather(*asking, return_exceptions=True)
        answers = [result for result in results if isinstance(result, Answer)]
        if not answers:
            reasons = dict.fromkeys(str(result) or "no reply" for result in results)
            raise Unreachable(f"no primary was found: {'; '.join(reasons)}")
        return max(answers, key=lambda answer: answer.rank).primary

    def note(self, run_id: str) -> None:
        """The shared connection is connected to this server."""
        self.is_replaced |= self.is_watched and self.run_id not in ("", run_id)
        self.run_id = run_id

    async def until_replaced(self, primary: Address) -> None:
        """Wait until Sentinels name another one."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            with suppress(RedisError):
                if await self.find_primary() != primary:
                    return

    async def _ask(self, connection_class: type[Connection] = Connection, **options: Any) -> Answer:
        node = connection_class(**options)
        try:
            await node.connect()  # type: ignore[no-untyped-call]
            for question in self._questions:
                await node.send_command(*question)
            state, *address = [await node.read_response() for _ in self._questions]
        except MovedError as error:
            # After a failover, the other nodes of a cluster hear of it from the primary.
            return Answer(0, (error.host or node.host, error.port))
        except AskError:
            return Answer(1, (node.host, node.port))  # while it hands its keys over
        finally:
            await node.disconnect(nowait=True)
        if not self.is_watched:
            return Answer(1, (node.host, node.port))
        # Sentinels hear of a failover one after the other.
        [(host, port)] = address
        return Answer(int(state[b"config-epoch"]), (host.decode(), int(port)))


class LocatedConnection(Connection):
    """Connects to the primary that `server` names at that time."""

    def __init__(self, *, server: RedisServer, **options: Any) -> None:
        super().__init__(**options)
        self.server = server
        self._run_id = ""

    async def connect(self) -> None:
        """A pool also calls it for a connection that was idle."""
        if self.is_connected and self._run_id != self.server.run_id:
            # The server before may live and believe that it is still the primary: an invalidation
            # there would be lost.
            await self.disconnect(nowait=True)
        if not self.is_connected:
            self._run_id = self.server.run_id
            self.host, self.port = await self.server.find_primary()
        await super().connect()  # type: ignore[no-untyped-call]


class LocatedSSLConnection(LocatedConnection, SSLConnection):
    pass


def connection_options(url: str, settings: RedisSettings) -> dict[str, Any]:
    """What the URL says comes first."""
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.timeout,
        "socket_timeout": settings.timeout,
        # By default redis-py retries an unreachable server for 4 seconds.
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.password:
        options["password"] = settings.password.get_secret_value()
    return {**options, **parse_url(url)}
