"""The same work done in several ways, a route each, for benchmarks/comparison/parts.py."""

import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import FastAPIDeprecationWarning
from fastapi.responses import JSONResponse, ORJSONResponse
from sqlalchemy import NullPool, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import selectinload

from app.models import Author, Book, BookAuthor
from app.schemas.book import BookRead
from app.services.book_queries import BOOKS, fold, with_authors
from benchmarks.designs.literature import to_schema

PAGE = 20

# FastAPI has found a faster way than orjson since, and says so.
warnings.simplefilter("ignore", FastAPIDeprecationWarning)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ["DATABASE_URL"]
    pool: dict[str, Any] = {"pool_size": 40, "max_overflow": 0}
    engines = {
        "none": create_async_engine(url, poolclass=NullPool),
        "pool": create_async_engine(url, **pool),
        "ping": create_async_engine(url, pool_pre_ping=True, **pool),
    }
    app.state.engines = engines
    app.state.books = await get_joined(0)
    yield
    for engine in engines.values():
        await engine.dispose()


app = FastAPI(lifespan=lifespan)


def open_session(engine: str = "pool") -> AsyncSession:
    return AsyncSession(app.state.engines[engine])


@app.get("/pool/{engine}")
async def get_title(engine: str, id: int) -> str | None:
    async with open_session(engine) as session:
        return await session.scalar(select(Book.title).where(Book.id == id))


@app.get("/authors/n-plus-one")
async def get_one_by_one(after: int) -> list[BookRead]:
    async with open_session() as session:
        books = await session.scalars(select(Book).where(Book.id > after).limit(PAGE))
        return [await _read_authors(session, book) for book in books.all()]


async def _read_authors(session: AsyncSession, book: Book) -> BookRead:
    authors = await session.execute(
        select(Author.id, Author.name)
        .join(BookAuthor, BookAuthor.author_id == Author.id)
        .where(BookAuthor.book_id == book.id)
        .order_by(BookAuthor.position)
    )
    columns = {name: getattr(book, name) for name in BookRead.model_fields.keys() - {"authors"}}
    return BookRead(**columns, authors=[row._asdict() for row in authors])


@app.get("/authors/eager")
async def get_eagerly(after: int) -> list[BookRead]:
    eager = selectinload(Book.book_authors).joinedload(BookAuthor.author)
    async with open_session() as session:
        query = select(Book).where(Book.id > after).limit(PAGE).options(eager)
        return [to_schema(book) for book in await session.scalars(query)]


@app.get("/authors/join")
async def get_joined(after: int) -> list[BookRead]:
    books = select(BOOKS).where(BOOKS.c.id > after).order_by(BOOKS.c.id).limit(PAGE).subquery()
    async with open_session() as session:
        return fold(await session.execute(with_authors(books, books.c.id)))


@app.get("/depth/offset")
async def get_by_offset(offset: int) -> list[int]:
    async with open_session() as session:
        query = select(Book.id).order_by(Book.title, Book.id).offset(offset).limit(PAGE)
        return [*await session.scalars(query)]


@app.get("/depth/keyset")
async def get_by_key(title: str, id: int) -> list[int]:
    further = (Book.title > title) | ((Book.title == title) & (Book.id > id))
    async with open_session() as session:
        query = select(Book.id).where(further).order_by(Book.title, Book.id).limit(PAGE)
        return [*await session.scalars(query)]


@app.get("/json/typed")
async def get_typed() -> list[BookRead]:
    return app.state.books  # type: ignore[no-any-return]


@app.get("/json/orjson", response_model=list[BookRead], response_class=ORJSONResponse)
async def get_by_orjson() -> Any:
    return app.state.books


@app.get("/json/stdlib", response_model=list[BookRead], response_class=JSONResponse)
async def get_by_stdlib() -> Any:
    return app.state.books


@app.get("/json/untyped")
async def get_untyped() -> Any:
    return app.state.books
