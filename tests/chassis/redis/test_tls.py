"""Several servers behind TLS: who is asked for the primary, and the primary itself."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ConnectionError as Unreachable

from chassis.redis.client import open_redis
from chassis.redis.server import RedisServer
from chassis.redis.settings import RedisSettings
from chassis.redis.shared_connection import open_shared_connection
from chassis.telemetry.metrics import Metrics
from tests.certificates import make_certificates
from tests.conftest import Servers
from tests.process import wait_until


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(4096):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def with_tls(socket: str, certificates: Path) -> AsyncIterator[int]:
    """The port of a proxy, as Valkey of the tests knows no TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(socket)
        await asyncio.gather(pipe(reader, to_server), pipe(from_server, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
        yield proxy.sockets[0].getsockname()[1]


async def test_primary_is_asked_for_and_used_with_tls(tmp_path: Path, servers: Servers):
    """A server alone says that it is the primary."""
    certificates = make_certificates(tmp_path)
    async with with_tls(urlsplit(servers.redis_url).path, certificates) as port:
        url = f"rediss+cluster://localhost:{port}?ssl_ca_certs={certificates}/ca.pem"
        server = RedisServer(RedisSettings(url=url, timeout=2), "{shop}")
        async with (
            open_redis(server, Metrics()) as redis,
            open_shared_connection(server, Metrics()) as shared,
        ):
            await wait_until(lambda: shared.connection is not None, "the connection")
            replies = [await shared.call("PING"), await redis.ping()]

    assert replies == [b"PONG", True]


async def test_certificate_of_another_authority_is_refused(tmp_path: Path, servers: Servers):
    certificates = make_certificates(tmp_path)
    async with with_tls(urlsplit(servers.redis_url).path, certificates) as port:
        url = f"rediss+sentinel://localhost:{port}/first?ssl_ca_certs={certificates}/other.pem"
        server = RedisServer(RedisSettings(url=url, timeout=2), "{shop}")

        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await server.find_primary()
