"""What browsers are told: which pages may call the service, and what its responses may do."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from pydantic import ValidationError

from app.schemas.user import Role
from app.settings import Settings
from chassis.browsers.settings import CorsSettings
from chassis.limits.settings import LimitsSettings, RequestSettings
from chassis.resources import Resources, open_resources
from tests.accounts import add_account
from tests.chassis.server.test_http_protocol import serving
from tests.conftest import client_of
from tests.service import create_app
from tests.shop import Shop

APP, PREVIEW, OTHER = "https://app.example.com", "https://pr-7.example.dev", "https://evil.example"
PATTERN = r"https://pr-\d+\.example\.dev"
SEVERAL = CorsSettings(origins=f"{APP}, http://localhost:3000", origin_pattern=PATTERN)
ONE = CorsSettings(origins=APP)
ALLOW, CREDENTIALS = "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"
PREFLIGHT = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "if-match"}

Open = Callable[..., Any]


@pytest.fixture
def opened(settings: Settings) -> Open:
    @asynccontextmanager
    async def opened(cors: CorsSettings, **groups: Any) -> AsyncIterator[tuple[Shop, Resources]]:
        changed = settings.model_copy(update={"cors": cors, **groups})
        async with (
            open_resources(changed) as resources,
            client_of(create_app(changed), resources) as client,
        ):
            async with resources["sessions"].write() as session:
                shop = Shop(client, await add_account(session, Role.EDITOR))
            yield shop, resources

    return opened


def vary(response: httpx.Response) -> list[str]:
    return [each.strip() for each in response.headers.get("Vary", "").split(",") if each]


async def test_nothing_is_said_without_settings(client: httpx.AsyncClient):
    origin = {"Origin": APP}

    response = await client.get("/health", headers=origin)
    preflight = await client.options("/health", headers=origin | PREFLIGHT)

    assert [name for name in response.headers if name.startswith("access-control")] == []
    assert "Origin" not in vary(response)
    assert preflight.status_code == 405


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000", PREVIEW])
async def test_origins_of_the_settings_may_read_responses(opened: Open, origin: str):
    async with opened(SEVERAL) as (shop, _):
        response = await shop.client.get("/v1/purchases", headers={"Origin": origin})

    assert response.headers[ALLOW] == origin
    assert "Origin" in vary(response)
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"ETag", "Location", "RateLimit", "Retry-After", "X-Request-ID"} <= {*exposed}
    assert CREDENTIALS not in response.headers


@pytest.mark.parametrize(
    "origin", [OTHER, f"{APP}.evil.example", f"{PREVIEW}.evil.example", "null", "", "x" * 5000]
)
async def test_other_origins_may_not(opened: Open, origin: str):
    async with opened(SEVERAL) as (shop, _):
        response = await shop.client.get("/v1/purchases", headers={"Origin": origin})
        refused = await shop.client.options("/v1/purchases", headers=PREFLIGHT | {"Origin": origin})

    assert response.status_code == 200  # the browser keeps it from the page
    assert ALLOW not in response.headers
    assert "Origin" in vary(response)
    assert refused.status_code == 403
    assert "CORS_ORIGINS" in refused.json()["detail"]
    assert ALLOW not in refused.headers


@pytest.mark.parametrize("origins", ["*", APP])
async def test_no_cache_has_to_vary_where_all_requests_get_the_same(opened: Open, origins: str):
    async with opened(CorsSettings(origins=origins)) as (shop, _):
        allowed = await shop.client.get("/v1/purchases", headers={"Origin": APP})
        without = await shop.client.get("/v1/purchases")

    assert allowed.headers[ALLOW] == without.headers[ALLOW] == origins
    assert "Origin" not in vary(allowed) + vary(without)


async def test_credentials_are_allowed_where_they_are_asked_for(opened: Open):
    async with opened(SEVERAL.model_copy(update={"credentials": True})) as (shop, _):
        response = await shop.client.get("/health", headers={"Origin": APP})
        preflight = await shop.client.options("/health", headers=PREFLIGHT | {"Origin": APP})

    assert response.headers[CREDENTIALS] == preflight.headers[CREDENTIALS] == "true"


async def test_preflight_says_what_is_allowed(opened: Open):
    cors = ONE.model_copy(update={"headers": "X-Tenant", "max_age": 7})
    async with opened(cors) as (shop, _):
        response = await shop.client.options("/v1/purchases", headers=PREFLIGHT | {"Origin": APP})

    assert response.status_code == 204
    assert response.headers[ALLOW] == APP
    methods = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= {*methods}
    names = response.headers["Access-Control-Allow-Headers"].split(", ")
    wanted = {"Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key"}
    assert wanted | {"X-Tenant"} <= {*names}
    assert response.headers["Access-Control-Max-Age"] == "7"


async def test_options_that_asks_nothing_is_answered_by_the_route(opened: Open):
    async with opened(SEVERAL) as (shop, _):
        response = await shop.client.options("/v1/purchases", headers={"Origin": APP})

    assert response.status_code == 405
    assert response.headers[ALLOW] == APP
    assert "GET" in response.headers["Allow"]


async def test_errors_can_be_read_too(opened: Open):
    origin = {"Origin": APP}
    async with opened(SEVERAL) as (shop, _):
        responses = {
            404: await shop.client.get("/nowhere", headers=origin),
            401: await shop.client.get("/v1/users/me", headers=origin),
            405: await shop.client.delete("/health", headers=origin),
            422: await shop.client.get("/v1/purchases?sort=x", headers=origin),
        }

    for status, response in responses.items():
        assert (response.status_code, response.headers[ALLOW]) == (status, APP)


async def test_cached_responses_are_those_of_each_origin(opened: Open):
    async with opened(SEVERAL) as (shop, _):
        path = f"/v1/purchases/{(await shop.add_purchase())['id']}"
        seen = [
            await shop.client.get(path, headers={"Origin": origin})
            for origin in (APP, PREVIEW, OTHER)
        ]
        tag = {"If-None-Match": seen[0].headers["ETag"]}
        same = await shop.client.get(path, headers=tag | {"Origin": PREVIEW})

    assert {response.text for response in seen} == {seen[0].text}
    assert [response.headers.get(ALLOW) for response in seen] == [APP, PREVIEW, None]
    assert (same.status_code, same.headers[ALLOW]) == (304, PREVIEW)


async def test_preflight_takes_nothing_from_a_limit_and_its_refusal_can_be_read(opened: Open):
    limits = LimitsSettings(writes_rate=0.001, writes_burst=1)
    headers = {"Origin": APP}
    async with opened(ONE, limits=limits) as (shop, _):
        preflights = [
            await shop.client.options("/v1/purchases", headers=PREFLIGHT | headers)
            for _ in range(5)
        ]
        made = await shop.client.post("/v1/purchases", headers=headers)
        refused = await shop.client.post("/v1/purchases", headers=headers)

    assert {response.status_code for response in preflights} == {204}
    assert (made.status_code, refused.status_code) == (401, 429)
    assert refused.headers[ALLOW] == APP


async def fetched(port: int, *lines: str) -> tuple[int, httpx.Headers]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    writer.close()
    await writer.wait_closed()
    fields = [line.partition(": ")[::2] for line in head[1:] if line]
    return int(head[0].split()[1]), httpx.Headers(fields)


async def test_server_that_sheds_load_answers_preflights_and_can_be_read(opened: Open):
    """In the worker's own protocol, which sheds load before the application sees a request."""
    request = RequestSettings(max_working=1)
    async with opened(SEVERAL, request=request) as (_, resources):
        app = create_app(resources["settings"])
        async with serving(app, dict(resources)) as port:
            with resources["admission"]:
                get = await fetched(port, "GET /v1/x HTTP/1.1", "Host: x", f"Origin: {PREVIEW}")
                asked = [f"{name}: {value}" for name, value in PREFLIGHT.items()]
                options = await fetched(
                    port, "OPTIONS /v1/x HTTP/1.1", "Host: x", f"Origin: {APP}", *asked
                )
        refused = await wrong(app, resources)

    assert (get[0], get[1][ALLOW]) == (503, PREVIEW)
    assert (options[0], options[1][ALLOW]) == (204, APP)
    assert (refused[0], refused[1][ALLOW]) == (400, APP)


async def wrong(app: Any, resources: Resources) -> tuple[int, httpx.Headers]:
    """A request that the worker's protocol refuses by its second header."""
    async with serving(app, dict(resources)) as port:
        return await fetched(port, "GET / HTTP/1.1", f"Origin: {APP}", "Host: a", "Host: b")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"origins": "*", "credentials": True}, "CORS_CREDENTIALS: would let every site"),
        ({"origin_pattern": ".*", "credentials": True}, "CORS_CREDENTIALS: would let every site"),
        ({"origins": f"{APP}/"}, f"write {APP}"),
        ({"origins": f"{APP}/path?x"}, f"write {APP}"),
        ({"origins": "HTTPS://App.Example.com:443"}, f"write {APP}"),
        ({"origins": "https://bücher.example"}, "write https://xn--bcher-kva.example"),
        ({"origins": "app.example.com"}, "is no origin"),
        ({"origins": "https://*.example.com"}, "is no origin"),
        ({"origins": "https://me@example.com"}, "is no origin"),
        ({"origins": "null"}, "is no origin"),
        ({"origin_pattern": "https://("}, "is no regular expression"),
        ({"origin_pattern": "https://é"}, "is no regular expression"),
        ({"headers": "X-A, X B"}, "`X B`, which is no name of a header"),
        ({"max_age": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=re.escape(said)):
        CorsSettings(**values)


async def test_each_response_tells_browsers_not_to_trust_it(client: httpx.AsyncClient):
    for path in ("/health", "/v1/purchases", "/nowhere", "/docs"):
        response = await client.get(path)

        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        [policy] = response.headers.get_list("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "Strict-Transport-Security" not in response.headers


async def test_images_may_be_shown_by_pages_where_these_may_read_responses(opened: Open):
    async with opened(ONE) as (shop, _):
        response = await shop.client.get("/health")

    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


@pytest.mark.parametrize(("hsts", "sent"), [("max-age=9", "max-age=9"), ("", None)])
async def test_strict_transport_security_is_sent_over_https(
    settings: Settings, hsts: str, sent: str | None
):
    settings.web = settings.web.model_copy(update={"hsts": hsts})
    app = create_app(settings)
    async with open_resources(settings) as resources, client_of(app, resources) as client:
        response = await client.get("https://test/health")

    assert response.headers.get("Strict-Transport-Security") == sent
