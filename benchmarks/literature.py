"""The tuned service that articles recommend, built as they say.

The endpoint depends on Redis and a database session, looks for JSON in Redis and decodes it, and
orjson writes the answer; time, metrics and the access line, as JSON, are taken by three classes of
BaseHTTPMiddleware.
"""

import json
import logging
import os
import time
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import FastAPIDeprecationWarning
from fastapi.responses import ORJSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from app.models import Book, BookAuthor
from app.schemas.book import BookRead

COLUMNS = BookRead.model_fields.keys() - {"authors"}


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


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    engine = create_async_engine(os.environ["DATABASE_URL"], pool_pre_ping=True)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
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


@app.get("/v1/books/{book_id}", response_model=BookRead)
async def get_book(
    book_id: int,
    redis: Annotated[Redis, Depends(get_redis)],
    db: Annotated[AsyncSession, Depends(get_db)],
) -> Any:
    key = f"literature:book:{book_id}"
    if cached := await redis.get(key):
        return json.loads(cached)
    authors = selectinload(Book.book_authors).joinedload(BookAuthor.author)
    book = await db.scalar(select(Book).where(Book.id == book_id).options(authors))
    if book is None:
        raise HTTPException(404, "Book not found")
    columns = {column: getattr(book, column) for column in COLUMNS}
    names = [{"id": link.author.id, "name": link.author.name} for link in book.book_authors]
    answer = BookRead(**columns, authors=names).model_dump(mode="json")
    await redis.set(key, json.dumps(answer), ex=300)
    return answer
