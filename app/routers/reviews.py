from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.cached_responses import cached
from app.dependencies import CurrentAccount, EditableReviews, Id, Once, Preconditions, Reviews
from app.etag import etag_of
from app.routing import Route, problems, sends
from app.schemas.page import Page
from app.schemas.review import ReviewCreate, ReviewQuery, ReviewRead, ReviewUpdate

router = APIRouter(prefix="/v1/books/{book_id}/reviews", tags=["reviews"], route_class=Route)


@router.get("", responses=problems(404))
@cached(ttl=60, tags=["reviews:{book_id}", "reviewers"])
async def get_reviews(
    book_id: Id, query: Annotated[ReviewQuery, Query()], reviews: Reviews
) -> Page[ReviewRead]:
    return await reviews.page(book_id, query)


@router.get("/{review_id}", responses=problems(404))
@cached(ttl=60, tags=["reviews:{book_id}", "reviewers"])
async def get_review(book_id: Id, review_id: Id, reviews: Reviews) -> ReviewRead:
    return await reviews.get(book_id, review_id)


@router.post(
    "", status_code=201, responses=problems(401, 404, 409, 412) | sends(201, "Location", "ETag")
)
async def create_review(
    book_id: Id,
    body: ReviewCreate,
    account: CurrentAccount,
    reviews: EditableReviews,
    once: Once,
    preconditions: Preconditions,
    response: Response,
) -> ReviewRead:
    review = await reviews.create(book_id, account.user, body, once, preconditions)
    response.headers["Location"] = f"/v1/books/{book_id}/reviews/{review.id}"
    response.headers["ETag"] = etag_of(review)
    return review


@router.patch("/{review_id}", responses=problems(401, 403, 404, 412) | sends(200, "ETag"))
async def update_review(
    book_id: Id,
    review_id: Id,
    body: ReviewUpdate,
    account: CurrentAccount,
    reviews: EditableReviews,
    preconditions: Preconditions,
    response: Response,
) -> ReviewRead:
    review = await reviews.update(book_id, review_id, account.user, body, preconditions)
    response.headers["ETag"] = etag_of(review)
    return review


@router.delete("/{review_id}", status_code=204, responses=problems(401, 403, 404, 412))
async def delete_review(
    book_id: Id,
    review_id: Id,
    account: CurrentAccount,
    reviews: EditableReviews,
    preconditions: Preconditions,
) -> None:
    await reviews.delete(book_id, review_id, account.user, preconditions)
