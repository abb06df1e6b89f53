from typing import Annotated

from fastapi import APIRouter, Query

from app.authentication import CurrentSession
from app.dependencies import Keys
from app.schemas.accounts.key import KeyCreate, KeyCreated, KeyId, KeyQuery, KeyRead
from chassis.http.dependencies import Idempotent
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.schemas.page import Page

router = APIRouter(prefix="/v1/users/me/keys", tags=["keys"], route_class=Route)


@router.get("", responses=problems(401, 403))
async def get_keys(
    query: Annotated[KeyQuery, Query()], account: CurrentSession, keys: Keys
) -> Page[KeyRead]:
    """List your API keys without their secrets, the latest first."""
    return await keys.page(account, query)


@router.post("", status_code=201, responses=problems(401, 403, 409))
async def create_key(
    body: KeyCreate, account: CurrentSession, keys: Keys, idempotent: Idempotent
) -> KeyCreated:
    """Make an API key.

    Only this response has its secret.
    """
    return await keys.create(account, body, idempotent)


@router.delete("/{key_id}", status_code=204, responses=problems(401, 403, 404))
async def delete_key(key_id: KeyId, account: CurrentSession, keys: Keys) -> None:
    """Revoke an API key at once."""
    await keys.revoke(account, key_id)
