from functools import partial
from typing import get_args

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Note
from app.schemas.note import NoteCreate, NoteQuery, NoteRead, NoteSort, NoteUpdate
from chassis.database.keyset import Sort
from chassis.database.transactions import retry_on_deadlock
from chassis.errors import Conflict, NotFound
from chassis.http.etag import etag_of
from chassis.http.preconditions import UNCONDITIONAL, Preconditions
from chassis.idempotency.requests import NO_KEY, IdempotentRequest
from chassis.resources import Resources
from chassis.schemas.fields import differing
from chassis.schemas.page import Page

TABLE = Note.__table__
COLUMNS = [TABLE.c[name] for name in NoteRead.model_fields]


def _sort(name: str) -> Sort:
    column = TABLE.c[name.removeprefix("-")]
    tie = None if column is TABLE.c.id else TABLE.c.id
    return Sort(name, column, tie, descending=name.startswith("-"))


SORTS = {name: _sort(name) for name in get_args(NoteSort)}


class NoteService:
    def __init__(self, session: AsyncSession, resources: Resources) -> None:
        self.session = session
        self.cache = resources["cache"]

    async def get(self, note_id: int) -> NoteRead:
        rows = await self.session.execute(select(*COLUMNS).where(Note.id == note_id))
        row = rows.mappings().first()
        if row is None:
            raise _no_note(note_id)
        return NoteRead(**row)

    async def page(self, query: NoteQuery) -> Page[NoteRead]:
        sort = SORTS[query.sort]
        page = select(*COLUMNS).order_by(*sort.by(TABLE)).limit(query.limit + 1)
        if query.after is not None:
            page = page.where(sort.after()).params(sort.cursor_params(query.after))
        rows = await self.session.execute(page)
        return sort.page([NoteRead(**row) for row in rows.mappings()], query.limit)

    @retry_on_deadlock
    async def create(
        self,
        body: NoteCreate,
        idempotent: IdempotentRequest = NO_KEY,
        preconditions: Preconditions = UNCONDITIONAL,
    ) -> NoteRead:
        work = partial(self._create, body, preconditions)
        note, is_new = await idempotent.run(self.session, NoteRead, work)
        if is_new:
            async with self.cache.invalidating("notes", f"note:{note.id}"):
                await self.session.commit()
        return note

    @retry_on_deadlock
    async def update(
        self, note_id: int, body: NoteUpdate, preconditions: Preconditions = UNCONDITIONAL
    ) -> NoteRead:
        note = await self._lock(note_id, preconditions)
        if not (changes := differing(note, body.model_dump(exclude_unset=True))):
            return await self.get(note_id)
        for name, value in changes.items():
            setattr(note, name, value)
        note.version += 1
        stored = await self._store(note)
        async with self.cache.invalidating("notes", f"note:{note_id}"):
            await self.session.commit()
        return stored

    @retry_on_deadlock
    async def delete(self, note_id: int, preconditions: Preconditions = UNCONDITIONAL) -> None:
        await self.session.delete(await self._lock(note_id, preconditions))
        try:
            async with self.cache.invalidating("notes", f"note:{note_id}"):
                await self.session.commit()
        except IntegrityError as error:
            raise Conflict(f"Note {note_id} is in use; delete what refers to it first") from error

    async def _lock(self, note_id: int, preconditions: Preconditions) -> Note:
        note = await self.session.get(Note, note_id, with_for_update=True)
        if note is None:
            raise _no_note(note_id)
        if preconditions:
            preconditions.check(etag_of(await self.get(note_id)))
        return note

    async def _create(self, body: NoteCreate, preconditions: Preconditions) -> NoteRead:
        if preconditions:
            # One at a time: each sees what the one before has added.
            first = select(Note.id).order_by(Note.id).limit(1)
            await self.session.execute(first.with_for_update())
            preconditions.check(etag_of(await self.page(NoteQuery())))
        note = Note(**body.model_dump())
        self.session.add(note)
        return await self._store(note)

    async def _store(self, note: Note) -> NoteRead:
        """As the database now holds it: it rounds and converts."""
        await self.session.flush()
        return await self.get(note.id)


def _no_note(note_id: int) -> NotFound:
    return NotFound(f"Note {note_id} does not exist")
