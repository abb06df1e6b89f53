"""What a handler may ask for; the only file that joins FastAPI to services."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import Depends, Header, Path, Request
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect

from app import cache, idempotency, read_session
from app.access_tokens import authorization, needs_token, require_claims
from app.email_address import normalize_email
from app.errors import (
    CutOff,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from app.etag import Tags, read_etags
from app.header_fields import list_field
from app.images import FORMATS
from app.rate_limit import RateLimiter, caller_of
from app.request_context import current_request
from app.schemas import book
from app.schemas.base import Whole
from app.schemas.user import Account, Role
from app.services import preconditions
from app.services.authors import AuthorService
from app.services.books import BookService
from app.services.covers import CoverService
from app.services.dashboard import DashboardService
from app.services.logins import LoginService
from app.services.offers import OfferService
from app.services.rankings import RankingService
from app.services.reviews import ReviewService
from app.services.users import UserService
from app.signed_urls import SignedUrls
from app.storage import FolderStorage

T = TypeVar("T")

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


async def open_read_session(request: Request) -> AsyncIterator[read_session.ReadSession]:
    async with request.state.sessions.read() as session:
        yield session


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.sessions.write() as session:
        yield session


# "function" returns the connection to the pool before the response is sent.
ReadSession = Annotated[read_session.ReadSession, Depends(open_read_session, scope="function")]
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]


async def get_cache(request: Request) -> cache.Cache:
    found: cache.Cache = request.state.cache
    return found


Cache = Annotated[cache.Cache, Depends(get_cache)]


def on_read_session(service: Callable[[AsyncSession, cache.Cache], T]) -> Callable[..., Any]:
    """A dependency: this service, for reads only."""

    async def make(session: ReadSession, cache: Cache) -> T:
        return service(session, cache)

    return make


def on_session(service: Callable[[AsyncSession, cache.Cache], T]) -> Callable[..., Any]:
    """A dependency: this service, for reads and writes."""

    async def make(session: Session, cache: Cache) -> T:
        return service(session, cache)

    return make


async def read_authors(request: Request, session: ReadSession, cache: Cache) -> AuthorService:
    return AuthorService(session, cache, request.state.outbox)


async def edit_authors(request: Request, session: Session, cache: Cache) -> AuthorService:
    return AuthorService(session, cache, request.state.outbox)


async def read_rankings(request: Request, cache: Cache) -> RankingService:
    return RankingService(request.state.sessions, cache)


async def get_offers(request: Request, cache: Cache) -> OfferService:
    state = request.state
    return OfferService(state.sessions, cache, state.http, state.settings.offers)


async def get_dashboard(
    request: Request, cache: Cache, offers: Annotated[OfferService, Depends(get_offers)]
) -> DashboardService:
    return DashboardService(request.state.sessions, cache, offers)


async def get_covers(request: Request, cache: Cache) -> CoverService:
    state = request.state
    if state.storage is None:
        raise Unavailable("Set FILES_URL to have covers")
    return CoverService(
        state.sessions,
        cache,
        state.storage,
        state.uploads,
        state.processes,
        state.settings.covers,
    )


async def get_users(request: Request, cache: Cache) -> UserService:
    state = request.state
    return UserService(state.sessions, cache, state.passwords, state.outbox)


async def get_logins(request: Request, cache: Cache) -> LoginService:
    state = request.state
    settings = state.settings.tokens
    return LoginService(state.sessions, cache, state.passwords, state.access_tokens, settings)


Books = Annotated[BookService, Depends(on_read_session(BookService))]
EditableBooks = Annotated[BookService, Depends(on_session(BookService))]
Authors = Annotated[AuthorService, Depends(read_authors)]
EditableAuthors = Annotated[AuthorService, Depends(edit_authors)]
Reviews = Annotated[ReviewService, Depends(on_read_session(ReviewService))]
EditableReviews = Annotated[ReviewService, Depends(on_session(ReviewService))]
Rankings = Annotated[RankingService, Depends(read_rankings)]
Offers = Annotated[OfferService, Depends(get_offers)]
Dashboard = Annotated[DashboardService, Depends(get_dashboard)]
Covers = Annotated[CoverService, Depends(get_covers)]
Users = Annotated[UserService, Depends(get_users)]
Logins = Annotated[LoginService, Depends(get_logins)]

Id = Annotated[Whole[book.Id], Path()]

# For the documentation's Authorize button; the token itself is read by claims_of.
oauth2 = OAuth2PasswordBearer("/v1/tokens", refreshUrl="/v1/tokens/refresh", auto_error=False)


class Credentials(NamedTuple):
    email: str | None  # None: what was sent is no address
    password: str


async def read_login(
    request: Request, form: Annotated[OAuth2PasswordRequestForm, Depends()]
) -> Credentials:
    """Besides the address, which may change, each account is limited; one that is none, too.

    What is no address has no limit of its own: it opens no account, and could be anything.
    """
    try:
        email = normalize_email(form.username)
    except ValueError:
        return Credentials(None, form.password)
    await _limit_guesses(request, email)
    return Credentials(email, form.password)


Guess = Callable[[], Awaitable[None]]


async def _limit_guesses(request: Request, email: str) -> None:
    limiter: RateLimiter = request.state.limiter
    await limiter.take("login", f"account:{email}")


@needs_token
async def get_account(
    request: Request, users: Users, token: Annotated[str | None, Depends(oauth2)]
) -> Account:
    try:
        return await users.of_session(*require_claims(request.scope))
    except NotFound as error:
        raise Unauthorized(f"{error}; log in", invalid=True) from None


CurrentAccount = Annotated[Account, Depends(get_account)]


async def limit_guesses_of_account(request: Request, account: CurrentAccount) -> Guess:
    """To be called before a password of this account is looked at: as many as there are logins."""
    return partial(_limit_guesses, request, account.user.email)


LoginForm = Annotated[Credentials, Depends(read_login)]
LimitGuesses = Annotated[Guess, Depends(limit_guesses_of_account)]


async def require_editor(account: CurrentAccount) -> None:
    if not account.user.role.includes(Role.EDITOR):
        raise Forbidden("This needs the role `editor`")


# As `read_etags` takes it, for the documentation; it reads all lines of the header as one list.
ENTITY_TAGS: dict[str, Any] = {
    "pattern": r'^([ \t]*\*[ \t]*|[ \t,]*((W/)?"[!#-~\u0080-\u00ff]*"[ \t,]*)+)$'
}


async def read_preconditions(
    request: Request,
    if_match: Annotated[
        str | SkipJsonSchema[None],
        Header(
            alias="If-Match",
            description="Change only what has one of these `ETag`s",
            json_schema_extra=ENTITY_TAGS,
        ),
    ] = None,
    if_none_match: Annotated[
        str | SkipJsonSchema[None],
        Header(
            alias="If-None-Match",
            description="Change only what has none of these `ETag`s; `*`: only what does not exist",
            json_schema_extra=ENTITY_TAGS,
        ),
    ] = None,
) -> preconditions.Preconditions:
    """FastAPI reads a line of each for the documentation's sake; a list may take several."""

    def tags(name: str) -> Tags | None:
        field = list_field(request.scope, name.lower().encode())
        try:
            return None if field is None else read_etags(field)
        except ValueError as error:
            raise Invalid(str(error), ("header", name)) from None

    return preconditions.Preconditions(tags("If-Match"), tags("If-None-Match"))


async def read_once(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias=idempotency.HEADER,
            pattern='^(?:"[^"]{1,255}"|[^"]{1,255})$',
            description="Makes it safe to send this again: it has one effect and one answer",
        ),
    ] = None,
) -> idempotency.Once:
    if key is None:
        return idempotency.ALWAYS
    if (context := current_request.get()) is not None:
        context.has_idempotency_key = True
    # FastAPI has read the body by now, as a form or as bytes.
    form = _media_type(request) in FORMS
    body = repr((await request.form()).multi_items()).encode() if form else await request.body()
    request_line = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    safe: idempotency.Safe = request.state.kept_answers
    return idempotency.Once(safe, caller_of(request.scope), key, request_line + body)


def _media_type(request: Request) -> str:
    """Without parameters, as Starlette has it where it reads a form."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def read_image(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; a `yield` of each part would make this a dependency with an exit."""
    if _media_type(request) not in FORMATS:
        raise UnsupportedMedia(f"Send an image as {', '.join(FORMATS)}", FORMATS)
    return _parts(request)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    try:
        async for part in request.stream():
            yield part
    except ClientDisconnect:
        raise CutOff("The body has ended before it was whole") from None


async def read_signature(request: Request, key: str, expires: str = "", signature: str = "") -> int:
    return SignedUrls(request.state.settings).check(key, expires, signature)


async def get_folder(request: Request) -> FolderStorage:
    storage = request.state.storage
    if not isinstance(storage, FolderStorage):
        raise NotFound("Files are not kept here")
    return storage


async def require_scraper(request: Request) -> None:
    """On the metrics port, if there is one; with the token, if there is one; else no proxy."""
    settings = request.state.settings
    port, token = settings.metrics.port, settings.metrics.token
    if port is not None and request.scope["server"][1] != port:
        raise NotFound("Not on this port")
    if token is not None:
        expected = f"Bearer {token.get_secret_value()}"
        given = authorization(request.scope) or ""
        if not secrets.compare_digest(given.encode(), expected.encode()):
            raise Unauthorized("Metrics need the token of METRICS_TOKEN")
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
ImageBody = Annotated[AsyncIterator[bytes], Depends(read_image)]
Signed = Annotated[int, Depends(read_signature)]
Folder = Annotated[FolderStorage, Depends(get_folder)]
Preconditions = Annotated[preconditions.Preconditions, Depends(read_preconditions)]
Once = Annotated[idempotency.Once, Depends(read_once)]
