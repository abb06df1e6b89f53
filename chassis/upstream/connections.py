"""Connections to other services: aiohttp's, behind the requests and errors of httpx."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import aiohttp
import httpx2 as httpx
from yarl import URL

from chassis.upstream.limits import ResponseRejected
from chassis.upstream.settings import HttpSettings

MAX_FIELD = 65_536  # bytes of a header of a response
# httpx has set those that it wants.
AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Connections:
    """Exchanges requests of httpx for responses; it opens and keeps connections as needed.

    Parsing and writing HTTP takes aiohttp, which does it in C, a fourth of the CPU time of httpx's
    own connections (docs/decisions/0024-outbound-connections.md). Make it in a running event loop.
    """

    def __init__(self, settings: HttpSettings, verify: ssl.SSLContext) -> None:
        self.max_response = settings.max_response
        # Not the limit of aiohttp, by which a wait for a connection is a timeout of the server.
        self._free = asyncio.Semaphore(settings.max_connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=settings.keepalive, ssl=verify
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            skip_auto_headers=AUTOMATIC,
        )
        # Retries are ours alone (retries.py): they have a budget, and are counted.
        self._session._retry_connection = False

    async def aclose(self) -> None:
        await self._session.close()

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """The response with its body. Raises httpx.TransportError."""
        timeouts = request.extensions["timeout"]
        try:
            async with asyncio.timeout(timeouts["pool"] if self._free.locked() else None):
                await self._free.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("All connections are in use", request=request) from None
        try:
            with _errors_of_httpx(request):
                return await self._exchange(request, timeouts)
        finally:
            self._free.release()

    async def _exchange(
        self, request: httpx.Request, timeouts: dict[str, float | None]
    ) -> httpx.Response:
        encoding = request.headers.encoding
        headers = [(name.decode(), value.decode(encoding)) for name, value in request.headers.raw]
        body: object = request.stream
        chunked = None
        if isinstance(body, httpx.ByteStream):
            # Not as bytes: those of a large body would be written in one go.
            body = BytesIO(request.content) if request.content else None
        elif "Transfer-Encoding" in request.headers:  # which aiohttp sets itself
            headers = [header for header in headers if header[0].lower() != "transfer-encoding"]
            chunked = True
        url = request.url
        async with self._session.request(
            request.method,
            URL(f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}", encoded=True),
            data=body,
            headers=headers,
            chunked=chunked,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=timeouts["connect"], sock_read=timeouts["read"]
            ),
        ) as response:
            content = await self._read(response)
            return httpx.Response(response.status, headers=response.raw_headers, content=content)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()  # instead of reading the rest
            raise ResponseRejected(
                "The response is compressed, although Accept-Encoding excludes it"
            )
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self.max_response:
                response.close()
                raise ResponseRejected(f"The response has more than {self.max_response} bytes")
        return bytes(body)


@contextmanager
def _errors_of_httpx(request: httpx.Request) -> Iterator[None]:
    """Without the URL, which some errors of aiohttp show: its query may have a secret."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        host = request.url.netloc.decode()
        raise httpx.ConnectTimeout(f"No connection to {host} in time", request=request) from None
    except aiohttp.ServerTimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except aiohttp.NonHttpUrlClientError:
        detail = f"{request.url.scheme} is neither http nor https"
        raise httpx.UnsupportedProtocol(detail, request=request) from None
    except aiohttp.InvalidURL:
        raise httpx.LocalProtocolError("The URL is not valid", request=request) from None
    except OSError as error:
        raise httpx.ReadError(str(error), request=request) from error
    except ValueError as error:
        raise httpx.LocalProtocolError(str(error), request=request) from error
    except aiohttp.ClientResponseError as error:
        raise httpx.RemoteProtocolError(error.message, request=request) from None
    except aiohttp.ClientError as error:
        raise httpx.RemoteProtocolError(str(error), request=request) from error
