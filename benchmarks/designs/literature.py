"""The tuned service that articles recommend, built as they say.

Gunicorn with uvicorn workers, a pooled async engine, an ORM session as a dependency, eager loading,
keyset pages, `response_model`, ORJSONResponse, JSON in Redis by GET and SETEX, one HTTP client and
`gather`; time, metrics and the access line, as JSON, are taken by three classes of
BaseHTTPMiddleware.
"""

import asyncio
import json
import logging
import os
import time
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2 as httpx
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import FastAPIDeprecationWarning
from fastapi.responses import ORJSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from app.models import Book, BookAuthor
from app.models.full_text import phrase_params
from app.sample.sellers import read_sellers
from app.schemas.book import BookRead
from app.schemas.offer import OfferRead
from chassis.routes.health_schema import Health
from chassis.text.search_words import phrases

COLUMNS = BookRead.model_fields.keys() - {"authors"}
TTL = 3600  # s


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": self.formatTime(record), "level": record.levelname}
        return json.dumps(fields | {"message": record.getMessage(), **record.fields})  # type: ignore[attr-defined]


log = logging.getLogger("literature")
log.propagate = False
handler = logging.StreamHandler()
handler.setFormatter(JSONFormatter())
log.addHandler(handler)
log.setLevel(logging.INFO)
registry = CollectorRegistry()
requests = Counter("requests", "Requests", ["method", "path", "status"], registry=registry)
latency = Histogram("latency", "Latency", ["method", "path"], registry=registry)


class TimingMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        start = time.perf_counter()
        response = await call_next(request)
        response.headers["X-Process-Time"] = str(time.perf_counter() - start)
        return response


class MetricsMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        start = time.perf_counter()
        response = await call_next(request)
        path = request.scope["route"].path
        latency.labels(request.method, path).observe(time.perf_counter() - start)
        requests.labels(request.method, path, response.status_code).inc()
        return response


class LoggingMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request_id = str(uuid.uuid4())
        response = await call_next(request)
        response.headers["X-Request-ID"] = request_id
        fields = {"method": request.method, "path": request.url.path, "request_id": request_id}
        log.info("request", extra={"fields": {**fields, "status": response.status_code}})
        return response


class BookPage(BaseModel):
    items: list[BookRead]
    next: int | None


class Offers(BaseModel):
    book_id: int
    offers: list[OfferRead]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    pool = {"pool_size": 20, "max_overflow": 20, "pool_pre_ping": True, "pool_recycle": 3600}
    engine = create_async_engine(os.environ["DATABASE_URL"], **pool)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with httpx.AsyncClient() as app.state.http:
        yield
    await engine.dispose()
    await app.state.redis.aclose()


async def get_redis(request: Request) -> Redis:
    return request.app.state.redis  # type: ignore[no-any-return]


async def get_db(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


# FastAPI has found a faster way since, and says so.
warnings.simplefilter("ignore", FastAPIDeprecationWarning)
app = FastAPI(lifespan=lifespan, default_response_class=ORJSONResponse)
for middleware in (TimingMiddleware, MetricsMiddleware, LoggingMiddleware):
    app.add_middleware(middleware)

Db = Annotated[AsyncSession, Depends(get_db)]


def with_authors(query: Select[Book]) -> Select[Book]:
    return query.options(selectinload(Book.book_authors).joinedload(BookAuthor.author))


def to_schema(book: Book) -> BookRead:
    columns = {column: getattr(book, column) for column in COLUMNS}
    names = [{"id": link.author.id, "name": link.author.name} for link in book.book_authors]
    return BookRead(**columns, authors=names)


async def find_book(db: AsyncSession, book_id: int) -> BookRead:
    book = await db.scalar(with_authors(select(Book).where(Book.id == book_id)))
    if book is None:
        raise HTTPException(404, "Book not found")
    return to_schema(book)


@app.get("/health", response_model=Health)
async def get_health() -> Any:
    return {"status": "ok"}


@app.get("/v1/books", response_model=BookPage)
async def get_books(db: Db, after: int = 0, limit: int = 20, q: str | None = None) -> Any:
    query = with_authors(select(Book).where(Book.id > after).order_by(Book.id).limit(limit))
    if q is not None:
        matches = text("MATCH (books.words) AGAINST (:q IN BOOLEAN MODE)")
        query = query.where(matches.bindparams(q=phrase_params(phrases(q))["mariadb_query"]))
    books = [to_schema(book) for book in await db.scalars(query)]
    return BookPage(items=books, next=books[-1].id if len(books) == limit else None)


@app.get("/v1/books/{book_id}", response_model=BookRead)
async def get_book(
    book_id: int, request: Request, redis: Annotated[Redis, Depends(get_redis)], db: Db
) -> Any:
    if request.headers.get("Cache-Control") == "no-store":
        return await find_book(db, book_id)
    key = f"literature:book:{book_id}"
    if cached := await redis.get(key):
        return json.loads(cached)
    response = (await find_book(db, book_id)).model_dump(mode="json")
    await redis.setex(key, TTL, json.dumps(response))
    return response


@app.get("/v1/books/{book_id}/offers", response_model=Offers)
async def get_offers(book_id: int, request: Request, db: Db) -> Any:
    book = await find_book(db, book_id)
    sellers = read_sellers(os.environ["OFFERS_SELLERS"])
    urls = [seller.url_of(book.isbn13, book.id) for seller in sellers]
    responses = await asyncio.gather(*(request.app.state.http.get(url) for url in urls))
    offers = [
        {"seller": seller.name, **response.json()}
        for seller, response in zip(sellers, responses, strict=True)
    ]
    return {"book_id": book.id, "offers": offers}
