from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.authentication import Editor
from app.sample.dependencies import Books
from app.schemas.book import BookCreate, BookQuery, BookRead, BookUpdate
from app.services.cache_tags import tag_of_list
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Id, Idempotent, RequestPreconditions
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/books", tags=["books"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=[tag_of_list])
async def get_books(query: Annotated[BookQuery, Query()], books: Books) -> Page[BookRead]:
    """List or search books, filtered and sorted."""
    return await books.page(query)


@router.get("/{book_id}", responses=problems(404))
@cached(ttl=300, tags=["book:{book_id}"])
async def get_book(book_id: Id, books: Books) -> BookRead:
    """Get a book with its authors."""
    return await books.get(book_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 409, 412) | sends(201, "Location", "ETag"),
    dependencies=[Editor],
)
async def create_book(
    body: BookCreate,
    books: Books,
    idempotent: Idempotent,
    preconditions: RequestPreconditions,
    response: Response,
) -> BookRead:
    """Add a book."""
    book = await books.create(body, idempotent, preconditions)
    response.headers["Location"] = f"/v1/books/{book.id}"
    return book


@router.patch(
    "/{book_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Editor],
)
async def update_book(
    book_id: Id, body: BookUpdate, books: Books, preconditions: RequestPreconditions
) -> BookRead:
    """Change a book; what is not sent stays."""
    return await books.update(book_id, body, preconditions)


@router.delete(
    "/{book_id}", status_code=204, responses=problems(401, 403, 404, 412), dependencies=[Editor]
)
async def delete_book(book_id: Id, books: Books, preconditions: RequestPreconditions) -> None:
    """Delete a book and its reviews."""
    await books.delete(book_id, preconditions)
