"""The data of an account, for its owner."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from app.schemas.accounts.audit import AuditQuery
from app.schemas.accounts.key import KeyQuery
from app.schemas.accounts.session import SessionQuery
from app.schemas.review import ReviewQuery  # sample
from app.schemas.user import Account
from app.services.accounts.audit import AuditService
from app.services.accounts.keys import KeyService
from app.services.accounts.sessions import SessionService
from app.services.reviews import ReviewService  # sample
from chassis.resources import Resources
from chassis.schemas.page import MAX_LIMIT, Page

# A page of one list of an account, after the `next` of the page before.
PageOf = Callable[[Resources, Account, str | None], Awaitable[Page[Any]]]


async def _sessions(resources: Resources, account: Account, after: str | None) -> Page[Any]:
    query = SessionQuery(limit=MAX_LIMIT, after=after)
    return await SessionService(resources).page(account, query)


async def _keys(resources: Resources, account: Account, after: str | None) -> Page[Any]:
    return await KeyService(resources).page(account, KeyQuery(limit=MAX_LIMIT, after=after))


async def _audit_events(resources: Resources, account: Account, after: str | None) -> Page[Any]:
    query = AuditQuery(limit=MAX_LIMIT, after=after, account_id=account.user.id)
    page = await AuditService(resources).page(query)
    for event in page.items:
        if event.actor_id != account.user.id:
            event.client = None  # the address of an administrator
    return page


# sample: begin
async def _reviews(resources: Resources, account: Account, after: str | None) -> Page[Any]:
    query = ReviewQuery(limit=MAX_LIMIT, after=after)
    async with resources["sessions"].current() as session:
        return await ReviewService(session, resources).page_of(account.user.id, query)


# sample: end
# The lists of an export by their names, which AccountExport documents.
PARTS: dict[str, PageOf] = {"sessions": _sessions, "keys": _keys, "audit_events": _audit_events}
PARTS |= {"reviews": _reviews}  # sample


class ExportService:
    """Writes JSON page by page, so its memory is that of a page."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    async def stream(self, account: Account) -> AsyncIterator[bytes]:
        yield b'{"account":' + account.user.model_dump_json().encode()
        for name, page_of in PARTS.items():
            start, after = f',"{name}":['.encode(), None
            while True:
                page = await page_of(self.resources, account, after)
                items = b",".join(item.model_dump_json().encode() for item in page.items)
                yield start + items
                if page.next is None:
                    break
                start, after = b",", page.next
            yield b"]"
        yield b"}\n"
