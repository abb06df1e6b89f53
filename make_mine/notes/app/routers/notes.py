from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.authentication import Editor
from app.dependencies import Notes
from app.schemas.note import NoteCreate, NoteQuery, NoteRead, NoteUpdate
from chassis.http.cached_responses import cached
from chassis.http.dependencies import Id, Idempotent, RequestPreconditions
from chassis.http.openapi import problems, sends
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/notes", tags=["notes"], route_class=Route)


@router.get("", responses=problems())
@cached(ttl=60, tags=["notes"])
async def get_notes(query: Annotated[NoteQuery, Query()], notes: Notes) -> Page[NoteRead]:
    """List notes."""
    return await notes.page(query)


@router.get("/{note_id}", responses=problems(404))
@cached(ttl=300, tags=["note:{note_id}"])
async def get_note(note_id: Id, notes: Notes) -> NoteRead:
    """Get a note."""
    return await notes.get(note_id)


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 409, 412) | sends(201, "Location", "ETag"),
    dependencies=[Editor],
)
async def create_note(
    body: NoteCreate,
    notes: Notes,
    idempotent: Idempotent,
    preconditions: RequestPreconditions,
    response: Response,
) -> NoteRead:
    """Add a note."""
    note = await notes.create(body, idempotent, preconditions)
    response.headers["Location"] = f"/v1/notes/{note.id}"
    return note


@router.patch(
    "/{note_id}", responses=problems(401, 403, 404, 412) | sends(200, "ETag"), dependencies=[Editor]
)
async def update_note(
    note_id: Id, body: NoteUpdate, notes: Notes, preconditions: RequestPreconditions
) -> NoteRead:
    """Change a note; what is not sent stays."""
    return await notes.update(note_id, body, preconditions)


@router.delete(
    "/{note_id}",
    status_code=204,
    responses=problems(401, 403, 404, 409, 412),
    dependencies=[Editor],
)
async def delete_note(note_id: Id, notes: Notes, preconditions: RequestPreconditions) -> None:
    """Delete a note."""
    await notes.delete(note_id, preconditions)
