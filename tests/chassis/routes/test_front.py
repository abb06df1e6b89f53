import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.settings import Settings, read_settings
from chassis.mail.settings import MailSettings
from chassis.resources import Resources
from chassis.routes.front import STYLE
from chassis.server.settings import WebSettings
from tests.conftest import client_of
from tests.service import create_app

ACCOUNT = "mary@example.com frank<n>stein"


class Links(HTMLParser):
    """The targets of a page's links, and the levels of its headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.headings: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets.append(dict(attrs)["href"] or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def browser(app: FastAPI, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, resources) as client:
        yield client


async def test_page_says_what_the_service_is(browser: httpx.AsyncClient, app: FastAPI):
    page = await browser.get("/?utm_source=mail")

    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert f"<title>{app.title}</title>" in page.text
    assert f"<h1>{app.title}</h1>" in page.text
    assert f"Version {app.version}<" in page.text
    assert app.summary is not None
    assert app.summary in page.text
    assert '<meta name="robots" content="noindex">' in page.text
    assert Links(page.text).headings == ["h1", "h2", "h2"]


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("docs", [True, False])
async def test_each_link_leads_somewhere(
    settings: Settings, resources: Resources, environment: str, docs: bool
):
    settings.web = WebSettings(docs=docs)
    settings.environment = "production" if environment == "production" else "development"
    async with client_of(create_app(settings), resources) as client:
        links = Links((await client.get("/")).text)
        found = [(await client.get(f"/{target}")).status_code for target in links.targets]

    expected = {"health"}
    expected |= {"docs", "openapi.json"} if docs else set()
    expected |= {"health/ready", "metrics"} if environment == "development" else set()
    assert set(links.targets) == expected
    assert found == [200] * len(links.targets)


async def test_development_shows_how_to_log_in(browser: httpx.AsyncClient, settings: Settings):
    without = await browser.get("/")
    settings.web.development_account = SecretStr(ACCOUNT)
    page = await browser.get("/")

    assert "Log in" not in without.text
    assert "<code>mary@example.com</code>, password <code>frank&lt;n&gt;stein</code>" in page.text


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via"])
async def test_proxy_is_shown_nothing_of_development(
    browser: httpx.AsyncClient, settings: Settings, header: str
):
    """It may be that of production, where ENVIRONMENT was forgotten."""
    settings.web.development_account = SecretStr(ACCOUNT)

    page = await browser.get("/", headers={header: "1.1 192.0.2.1"})

    assert page.status_code == 200
    assert "mary@example.com" not in page.text
    assert "development" not in page.text.partition("</style>")[2]


async def test_production_shows_nothing_of_development(
    browser: httpx.AsyncClient, settings: Settings
):
    settings.environment = "production"
    settings.web.development_account = SecretStr(ACCOUNT)

    page = await browser.get("/")

    assert page.status_code == 200
    assert "mary@example.com" not in page.text
    assert "development" not in page.text.partition("</style>")[2]


@pytest.mark.parametrize(
    ("account", "fault"),
    [(ACCOUNT, "is only for development"), ("mary@example.com", "is not an address, a space and")],
)
def test_production_refuses_an_account_for_all(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, account: str, fault: str
):
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("WEB_DEVELOPMENT_ACCOUNT", account)

    with pytest.raises(SystemExit, match=f"WEB_DEVELOPMENT_ACCOUNT: {fault}") as refusal:
        read_settings()

    assert "frank" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, "waits until <code>MAIL_URL</code> is set"),
        ("file:///var/m%20l", "<code>make mail</code> shows the last ones in <code>/var/m l</code"),
        ("smtp://mary:secret@smtp.example.com:587", "goes to <code>smtp.example.com</code>"),
    ],
)
async def test_development_tells_where_mail_is(
    browser: httpx.AsyncClient, settings: Settings, url: str | None, shown: str
):
    settings.mail = MailSettings(url=SecretStr(url) if url else None)

    page = await browser.get("/")

    assert shown in page.text
    assert "secret" not in page.text


async def test_development_links_to_a_page_with_the_mail(
    browser: httpx.AsyncClient, settings: Settings
):
    settings.web.development_mail = "http://127.0.0.1:8025"

    links = Links((await browser.get("/")).text)

    assert "http://127.0.0.1:8025" in links.targets


async def test_metrics_of_another_port_are_linked_there(
    browser: httpx.AsyncClient, settings: Settings
):
    settings.metrics.port = 9000

    page = await browser.get("/", headers={"Host": 'evil"<b>[:'})

    assert "http://test:9000/metrics" in Links(page.text).targets
    assert "evil" not in page.text


async def test_what_the_service_is_called_is_text_and_no_markup(
    browser: httpx.AsyncClient, app: FastAPI
):
    app.title, app.summary, app.version = "<b>&", '"><script>', "<i>1"

    page = (await browser.get("/")).text

    assert "<h1>&lt;b&gt;&amp;</h1>" in page
    assert not {"<b>", "<script", "<i>"} & set(re.findall(r"<\w+>?", page))


async def test_head_and_a_known_page_have_the_headers_of_the_page(browser: httpx.AsyncClient):
    names = ("ETag", "Cache-Control", "Content-Security-Policy")
    page, head = await browser.get("/"), await browser.head("/")
    tag = page.headers["ETag"]
    known = await browser.get("/", headers={"If-None-Match": f"W/{tag}"})
    other = await browser.get("/", headers={"If-None-Match": '"other"'})

    assert (head.status_code, known.status_code, other.status_code) == (200, 304, 200)
    assert (head.content, known.content) == (b"", b"")
    assert page.headers["Cache-Control"] == "no-cache"
    for response in (head, known):
        assert [response.headers[name] for name in names] == [page.headers[name] for name in names]


async def test_page_loads_nothing_and_its_policy_allows_its_style_only(
    browser: httpx.AsyncClient,
):
    page = await browser.get("/")
    [style] = re.findall("<style>(.*?)</style>", page.text, re.DOTALL)
    style_hash = b64encode(sha256(style.encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"]
    directives = {name: values for name, *values in map(str.split, policy.split(";"))}

    assert directives == {
        "default-src": ["'none'"],
        "style-src": [f"'sha256-{style_hash}'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    assert "<script" not in page.text
    assert not re.search(r"""src=|url\(|@import|href="(?:https?:)?//""", page.text)


async def test_links_keep_the_prefix_of_a_proxy(app: FastAPI, resources: Resources):
    transport = _under("/api", app, resources)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        page = await client.get("/api/")
        paths = [str(page.url.join(target).path) for target in Links(page.text).targets]
        found = [(await client.get(path)).status_code for path in paths]

    assert page.status_code == 200
    assert all(path.startswith("/api/") for path in paths)
    assert found == [200] * len(paths)


def _under(prefix: str, app: FastAPI, resources: Resources) -> httpx.ASGITransport:
    async def running_app(scope, receive, send):
        await app({**scope, "state": dict(resources), "root_path": prefix}, receive, send)

    return httpx.ASGITransport(running_app)


async def test_page_is_not_in_the_document_of_the_api(browser: httpx.AsyncClient):
    assert "/" not in (await browser.get("/openapi.json")).json()["paths"]


async def test_page_is_hidden_on_the_metrics_port(settings: Settings, resources: Resources):
    settings.metrics.port = 9000
    async with client_of(create_app(settings), resources) as client:
        hidden, shown = await client.get("http://test:9000/"), await client.get("http://test/")

    assert (hidden.status_code, shown.status_code) == (404, 200)


async def test_page_takes_nothing_of_a_clients_rate(settings: Settings, resources: Resources):
    resources["limiter"].enabled = True
    async with client_of(create_app(settings), resources) as client:
        page = await client.get("/")

    assert "RateLimit" not in page.headers


def luminance(color: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    digits = color if len(color) == 6 else "".join(digit * 2 for digit in color)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_in_both_themes(theme: int):
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    colors = dict(re.findall(r"--(\w+): #([0-9a-f]+);", blocks[theme]))

    for text in ("text", "quiet", "link"):
        for ground in ("page", "card"):
            light, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
