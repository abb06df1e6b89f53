from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.authentication import CurrentAccount
from app.sample.dependencies import Reviews
from app.schemas.review import ReviewCreate, ReviewQuery, ReviewRead, ReviewUpdate
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Id, Idempotent, RequestPreconditions
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/books/{book_id}/reviews", tags=["reviews"], route_class=Route)


@router.get("", responses=problems(404))
@cached(ttl=60, tags=["reviews:{book_id}"])
async def get_reviews(
    book_id: Id, query: Annotated[ReviewQuery, Query()], reviews: Reviews
) -> Page[ReviewRead]:
    """List the reviews of a book."""
    return await reviews.page(book_id, query)


@router.get("/{review_id}", responses=problems(404))
@cached(ttl=60, tags=["reviews:{book_id}"])
async def get_review(book_id: Id, review_id: Id, reviews: Reviews) -> ReviewRead:
    """Get a review."""
    return await reviews.get(book_id, review_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 404, 409, 412) | sends(201, "Location", "ETag"),
)
async def create_review(
    book_id: Id,
    body: ReviewCreate,
    account: CurrentAccount,
    reviews: Reviews,
    idempotent: Idempotent,
    preconditions: RequestPreconditions,
    response: Response,
) -> ReviewRead:
    """Review a book, once."""
    review = await reviews.create(book_id, account.user, body, idempotent, preconditions)
    response.headers["Location"] = f"/v1/books/{book_id}/reviews/{review.id}"
    return review


@router.patch("/{review_id}", responses=problems(401, 403, 404, 412) | sends(200, "ETag"))
async def update_review(
    book_id: Id,
    review_id: Id,
    body: ReviewUpdate,
    account: CurrentAccount,
    reviews: Reviews,
    preconditions: RequestPreconditions,
) -> ReviewRead:
    """Change a review you wrote."""
    return await reviews.update(book_id, review_id, account.user, body, preconditions)


@router.delete("/{review_id}", status_code=204, responses=problems(401, 403, 404, 412))
async def delete_review(
    book_id: Id,
    review_id: Id,
    account: CurrentAccount,
    reviews: Reviews,
    preconditions: RequestPreconditions,
) -> None:
    """Delete a review you wrote."""
    await reviews.delete(book_id, review_id, account.user, preconditions)
