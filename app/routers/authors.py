from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.authentication import Editor
from app.sample.dependencies import Authors
from app.schemas.author import AuthorCreate, AuthorQuery, AuthorRead, AuthorUpdate
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Id, Idempotent, RequestPreconditions
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/authors", tags=["authors"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["authors"])
async def get_authors(query: Annotated[AuthorQuery, Query()], authors: Authors) -> Page[AuthorRead]:
    """List authors, sorted by id or name."""
    return await authors.page(query)


@router.get("/{author_id}", responses=problems(404))
@cached(ttl=300, tags=["author:{author_id}"])
async def get_author(author_id: Id, authors: Authors) -> AuthorRead:
    """Get an author."""
    return await authors.get(author_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 409, 412) | sends(201, "Location", "ETag"),
    dependencies=[Editor],
)
async def create_author(
    body: AuthorCreate,
    authors: Authors,
    idempotent: Idempotent,
    preconditions: RequestPreconditions,
    response: Response,
) -> AuthorRead:
    """Add an author."""
    author = await authors.create(body, idempotent, preconditions)
    response.headers["Location"] = f"/v1/authors/{author.id}"
    return author


@router.patch(
    "/{author_id}",
    responses=problems(401, 403, 404, 409, 412) | sends(200, "ETag"),
    dependencies=[Editor],
)
async def update_author(
    author_id: Id, body: AuthorUpdate, authors: Authors, preconditions: RequestPreconditions
) -> AuthorRead:
    """Rename an author."""
    return await authors.update(author_id, body, preconditions)


@router.delete(
    "/{author_id}",
    status_code=204,
    responses=problems(401, 403, 404, 409, 412),
    dependencies=[Editor],
)
async def delete_author(
    author_id: Id, authors: Authors, preconditions: RequestPreconditions
) -> None:
    """Delete an author who has no books."""
    await authors.delete(author_id, preconditions)
