from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.cached_responses import cached
from app.dependencies import Books, EditableBooks, Editor, Id, Once, Preconditions
from app.etag import etag_of
from app.routing import Route, problems, sends
from app.schemas.book import BookCreate, BookQuery, BookRead, BookUpdate
from app.schemas.page import Page

router = APIRouter(prefix="/v1/books", tags=["books"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["books", "author-names"])
async def get_books(query: Annotated[BookQuery, Query()], books: Books) -> Page[BookRead]:
    return await books.page(query)


@router.get("/{book_id}", responses=problems(404))
@cached(ttl=300, tags=["book:{book_id}", "author-names"])
async def get_book(book_id: Id, books: Books) -> BookRead:
    return await books.get(book_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 409, 412) | sends(201, "Location", "ETag"),
    dependencies=[Editor],
)
async def create_book(
    body: BookCreate,
    books: EditableBooks,
    once: Once,
    preconditions: Preconditions,
    response: Response,
) -> BookRead:
    book = await books.create(body, once, preconditions)
    response.headers["Location"] = f"/v1/books/{book.id}"
    response.headers["ETag"] = etag_of(book)
    return book


@router.patch(
    "/{book_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Editor],
)
async def update_book(
    book_id: Id,
    body: BookUpdate,
    books: EditableBooks,
    preconditions: Preconditions,
    response: Response,
) -> BookRead:
    book = await books.update(book_id, body, preconditions)
    response.headers["ETag"] = etag_of(book)
    return book


@router.delete(
    "/{book_id}", status_code=204, responses=problems(401, 403, 404, 412), dependencies=[Editor]
)
async def delete_book(book_id: Id, books: EditableBooks, preconditions: Preconditions) -> None:
    await books.delete(book_id, preconditions)
