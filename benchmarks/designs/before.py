"""The service that articles about performance warn of, with all its faults at once.

An engine for each request, a blocking driver in `async def`, a query for each related row, LIKE and
OFFSET, dictionaries written by the standard library's JSON, a new HTTP client for each of the
outbound calls, which follow each other, and no cache.
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import httpx2 as httpx
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.orm import Session

from app.models import Author, Book, BookAuthor
from app.sample.sellers import read_sellers
from app.schemas.book import BookRead

COLUMNS = BookRead.model_fields.keys() - {"authors"}

app = FastAPI()


async def get_db() -> AsyncIterator[Session]:
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="mariadb+pymysql")
    engine = create_engine(url)
    with Session(engine) as session:
        yield session
    engine.dispose()


Db = Annotated[Session, Depends(get_db)]


def as_dict(db: Session, book: Book) -> dict[str, Any]:
    columns = {column: getattr(book, column) for column in COLUMNS}
    links = db.scalars(
        select(BookAuthor).where(BookAuthor.book_id == book.id).order_by(BookAuthor.position)
    )
    return {**columns, "authors": list(authors(db, list(links)))}


def authors(db: Session, links: list[BookAuthor]) -> Iterator[dict[str, Any]]:
    for link in links:
        author = db.scalars(select(Author).where(Author.id == link.author_id)).one()
        yield {"id": author.id, "name": author.name}


@app.get("/health")
async def get_health() -> Any:
    return {"status": "ok"}


@app.get("/v1/books")
async def get_books(db: Db, offset: int = 0, limit: int = 20, q: str | None = None) -> Any:
    query = select(Book).order_by(Book.id).offset(offset).limit(limit)
    if q is not None:
        query = query.where(Book.title.like(f"%{q}%"))
    return {"items": [as_dict(db, book) for book in db.scalars(query).all()]}


@app.get("/v1/books/{book_id}")
async def get_book(book_id: int, db: Db) -> Any:
    book = db.scalar(select(Book).where(Book.id == book_id))
    if book is None:
        raise HTTPException(404, "Book not found")
    return as_dict(db, book)


@app.get("/v1/books/{book_id}/offers")
async def get_offers(book_id: int, db: Db) -> Any:
    if db.scalar(select(Book).where(Book.id == book_id)) is None:
        raise HTTPException(404, "Book not found")
    offers = []
    for seller in read_sellers(os.environ["OFFERS_SELLERS"]):
        response = httpx.get(seller.url_of(None, book_id) or "")
        offers.append({"seller": seller.name, **response.json()})
    return {"book_id": book_id, "offers": offers}
