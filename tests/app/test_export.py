"""The export of an account has all of its data, and none of others."""

from datetime import timedelta
from typing import Any

import httpx2 as httpx
from sqlalchemy import insert

from app.main import create_app
from app.models import AuditEvent
from app.schemas.accounts.export import AccountExport
from app.schemas.user import Role
from app.services.accounts.export import PARTS
from app.settings import Settings
from chassis.clock import now
from chassis.resources import Resources
from tests.accounts import account_headers
from tests.conftest import client_of
from tests.logins import REGISTER, bearing, is_unauthorized, tokens_of
from tests.queries import recorded

URL = "/v1/users/me/export"


async def test_export_has_what_the_routes_show_and_nothing_of_others(
    client: httpx.AsyncClient, user: dict[str, Any]
):
    await client.post("/v1/users", json=REGISTER | {"email": "percy@example.com"})
    await tokens_of(client, email="percy@example.com")
    for _ in range(2):
        token = (await tokens_of(client))["access_token"]
    response = await client.get(URL, headers=bearing(token))
    sessions = await client.get("/v1/users/me/sessions", headers=bearing(token))
    exported = response.json()

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    name = f'attachment; filename="account-{user["id"]}.json"'
    assert response.headers["Content-Disposition"] == name
    assert response.headers["Cache-Control"] == "private, no-store"
    assert exported["account"] == user
    assert exported["sessions"] == sessions.json()["items"]
    events = [each["event"] for each in exported["audit_events"]]
    assert events == ["login", "login", "registered"]
    assert {each["account_id"] for each in exported["audit_events"]} == {user["id"]}
    assert "percy" not in response.text


async def test_addresses_of_administrators_are_not_exported(
    settings: Settings, client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    admin = await account_headers(Role.ADMIN, resources)
    async with client_of(create_app(settings), resources, "198.51.100.7") as elsewhere:
        path = f"/v1/users/{user['id']}"
        await elsewhere.patch(path, json={"role": "editor"}, headers=admin)
    token = (await tokens_of(client))["access_token"]
    response = await client.get(URL, headers=bearing(token))

    events = response.json()["audit_events"]
    shown = [(each["event"], each["client"]) for each in events]
    assert shown == [("login", "127.0.0.1"), ("role_changed", None), ("registered", "127.0.0.1")]
    assert "198.51.100.7" not in response.text


async def test_export_is_read_in_pages(
    client: httpx.AsyncClient, user: dict[str, Any], resources: Resources
):
    rows = [
        {
            "event": "login",
            "account_id": user["id"],
            "details": {},
            "created_at": now() - timedelta(seconds=number + 60),
        }
        for number in range(250)
    ]
    async with resources["sessions"].write.begin() as session:
        await session.execute(insert(AuditEvent), rows)
    token = (await tokens_of(client))["access_token"]
    with recorded(resources["sessions"]) as queries:
        response = await client.get(URL, headers=bearing(token))

    ids = [each["id"] for each in response.json()["audit_events"]]
    assert len(ids) == len(set(ids)) == 252  # with the registration and the login
    pages = [query for query in queries if "FROM audit_events" in query.statement]
    assert len(pages) == 3


async def test_export_is_what_its_schema_documents(client: httpx.AsyncClient, user: dict[str, Any]):
    token = (await tokens_of(client))["access_token"]
    exported = (await client.get(URL, headers=bearing(token))).text
    document = (await client.get("/openapi.json")).json()

    read = AccountExport.model_validate_json(exported)
    assert AccountExport.model_fields.keys() == {"account", *PARTS}
    assert read.model_dump_json() == exported.strip()
    documented = document["paths"][URL]["get"]["responses"]["200"]["content"]
    schema = {"$ref": "#/components/schemas/AccountExport"}
    assert documented == {"application/json": {"schema": schema}}


async def test_export_needs_a_token(client: httpx.AsyncClient):
    assert is_unauthorized(await client.get(URL), invalid=False)
