"""A proxy before MariaDB that breaks connections where a test wants it, statement by statement."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import URL, make_url

# What becomes of a statement. `lost`: it is carried out, and the connection ends before its reply.
# `held`: the same, but the connection stays. `dropped`: the connection ends before it has arrived.
# `killed`: the server ends the connection.
Fate = Literal["passed", "lost", "dropped", "held", "killed"]


@dataclass
class Proxy:
    server: URL
    kill: Callable[[int], Awaitable[None]]
    fate: Callable[[bytes], Fate] = lambda statement: "passed"
    port: int = 0
    clients: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        url = self.server.set(host="127.0.0.1", port=self.port)
        url = url.difference_update_query(["unix_socket"])
        return url.render_as_string(hide_password=False)

    def cut(self) -> None:
        """End all connections, and hold none from now on."""
        self.fate = lambda statement: "passed"
        for client in self.clients:
            client.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = str(self.server.query.get("unix_socket", ""))
        server_reader, server_writer = await (
            asyncio.open_unix_connection(to)
            if to
            else asyncio.open_connection(self.server.host, self.server.port or 3306)
        )
        greeting = await read_packet(server_reader)
        self.clients.add(writer)
        writer.write(greeting)
        version_end = greeting.index(b"\0", 5)
        connection_id = int.from_bytes(greeting[version_end + 1 : version_end + 5], "little")
        replies = asyncio.create_task(pump(server_reader, writer))
        has_written = False
        try:
            while packet := await read_packet(reader):
                statement = packet[5:] if packet[3:5] == b"\0\x03" else b""
                # The dialect commits once more, when it sets up a connection.
                is_setup = statement == b"COMMIT" and not has_written
                fate = "passed" if is_setup else self.fate(statement)
                has_written |= statement.startswith((b"INSERT", b"UPDATE", b"DELETE"))
                if fate == "dropped":
                    break
                if fate in ("lost", "held"):
                    replies.cancel()
                    await asyncio.wait([replies])
                if fate == "killed":
                    await self.kill(connection_id)
                server_writer.write(packet)
                if fate == "lost":
                    await read_packet(server_reader)
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            replies.cancel()
            server_writer.close()
            writer.close()
            self.clients.discard(writer)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """https://mariadb.com/docs/server/reference/clientserver-protocol/0-packet"""
    try:
        header = await reader.readexactly(4)
        return header + await reader.readexactly(int.from_bytes(header[:3], "little"))
    except asyncio.IncompleteReadError:
        return b""


@asynccontextmanager
async def proxied(url: str, kill: Callable[[int], Awaitable[None]]) -> AsyncIterator[Proxy]:
    proxy = Proxy(make_url(url), kill)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
