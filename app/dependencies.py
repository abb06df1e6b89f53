"""What a handler may ask for; the only file that joins FastAPI to services."""

import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Path, Request
from fastapi.security import APIKeyHeader
from sqlalchemy.ext.asyncio import AsyncSession

from app import cache, database
from app.errors import NotFound, Unauthorized
from app.etag import read_etags
from app.schemas.base import Whole
from app.schemas.book import MAX_ID
from app.security import is_editor
from app.services.authors import AuthorService
from app.services.books import BookService
from app.services.preconditions import ExpectedTags
from app.services.rankings import RankingService


async def open_read_session(request: Request) -> AsyncIterator[database.ReadSession]:
    async with request.state.sessions.read() as session:
        yield session


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.sessions.write() as session:
        yield session


# "function" returns the connection to the pool before the response is sent.
ReadSession = Annotated[database.ReadSession, Depends(open_read_session, scope="function")]
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]


async def get_cache(request: Request) -> cache.Cache:
    found: cache.Cache = request.state.cache
    return found


Cache = Annotated[cache.Cache, Depends(get_cache)]


async def read_books(session: ReadSession, cache: Cache) -> BookService:
    return BookService(session, cache)


async def edit_books(session: Session, cache: Cache) -> BookService:
    return BookService(session, cache)


async def read_authors(session: ReadSession, cache: Cache) -> AuthorService:
    return AuthorService(session, cache)


async def edit_authors(session: Session, cache: Cache) -> AuthorService:
    return AuthorService(session, cache)


async def read_rankings(request: Request, cache: Cache) -> RankingService:
    return RankingService(request.state.sessions, cache)


Books = Annotated[BookService, Depends(read_books)]
EditableBooks = Annotated[BookService, Depends(edit_books)]
Authors = Annotated[AuthorService, Depends(read_authors)]
EditableAuthors = Annotated[AuthorService, Depends(edit_authors)]
Rankings = Annotated[RankingService, Depends(read_rankings)]

Id = Annotated[Whole, Path(ge=1, le=MAX_ID)]

api_key_header = APIKeyHeader(name="X-API-Key", auto_error=False)


async def require_editor(
    request: Request, api_key: Annotated[str | None, Depends(api_key_header)]
) -> None:
    if not is_editor((api_key or "").encode(), request.state.settings.api):
        raise Unauthorized("Writing needs the key of an editor in the header X-API-Key")


async def read_if_match(
    if_match: Annotated[
        str | None,
        Header(alias="If-Match", description="Change only what has this `ETag`"),
    ] = None,
) -> ExpectedTags:
    """The tags of `If-Match` (RFC 9110, 13.1.1)."""
    return None if if_match is None else read_etags(if_match)


async def require_scraper(
    request: Request, authorization: Annotated[str | None, Header()] = None
) -> None:
    """On the metrics port, if there is one; with the token, if there is one; else no proxy."""
    settings = request.state.settings
    port, token = settings.metrics.port, settings.metrics.token
    if port is not None and request.scope["server"][1] != port:
        raise NotFound("Not on this port")
    if token is not None:
        expected = f"Bearer {token.get_secret_value()}"
        if not secrets.compare_digest((authorization or "").encode(), expected.encode()):
            raise Unauthorized("Metrics need the token of METRICS_TOKEN", "Bearer")
    elif port is None and (settings.environment == "production" or _came_by_proxy(request)):
        raise NotFound("Set METRICS_PORT or METRICS_TOKEN to have metrics here")


def _came_by_proxy(request: Request) -> bool:
    """As most proxies say; one that says nothing cannot be told from a client."""
    names = {name.decode("latin-1") for name, _ in request.scope["headers"]}
    return any(
        name in ("forwarded", "via", "x-real-ip") or name.startswith("x-forwarded-")
        for name in names
    )


Editor = Depends(require_editor)
Scraper = Depends(require_scraper)
IfMatch = Annotated[ExpectedTags, Depends(read_if_match)]
