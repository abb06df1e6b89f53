from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.dependencies import Authors, EditableAuthors, Editor, Id, IfMatch
from app.routing import Route, etag, problems
from app.schemas.author import AuthorCreate, AuthorQuery, AuthorRead, AuthorUpdate
from app.schemas.page import Page

router = APIRouter(prefix="/v1/authors", tags=["authors"], route_class=Route)


@router.get("", responses=problems())
async def get_authors(query: Annotated[AuthorQuery, Query()], authors: Authors) -> Page[AuthorRead]:
    return await authors.page(query)


@router.get("/{author_id}", responses=problems(404))
async def get_author(author_id: Id, authors: Authors, response: Response) -> AuthorRead:
    author = await authors.get(author_id)
    response.headers["ETag"] = etag(author.version)
    return author


@router.post("", status_code=201, responses=problems(401, 409, 413), dependencies=[Editor])
async def create_author(
    body: AuthorCreate, authors: EditableAuthors, response: Response
) -> AuthorRead:
    author = await authors.create(body)
    response.headers["Location"] = f"/v1/authors/{author.id}"
    response.headers["ETag"] = etag(author.version)
    return author


@router.patch("/{author_id}", responses=problems(401, 404, 409, 412, 413), dependencies=[Editor])
async def update_author(
    author_id: Id,
    body: AuthorUpdate,
    authors: EditableAuthors,
    if_match: IfMatch,
    response: Response,
) -> AuthorRead:
    author = await authors.update(author_id, body, if_match)
    response.headers["ETag"] = etag(author.version)
    return author


@router.delete(
    "/{author_id}", status_code=204, responses=problems(401, 404, 409), dependencies=[Editor]
)
async def delete_author(author_id: Id, authors: EditableAuthors) -> None:
    await authors.delete(author_id)
