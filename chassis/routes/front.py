"""The page at `/`: what this service is, and where to go on. In development also how to log in."""

from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from chassis.http.etag import etag, is_known
from chassis.http.routing import ProbeRoute
from chassis.resources import Resources
from chassis.routes.metrics import came_by_proxy
from chassis.service_settings import ChassisSettings

HERE = Path(__file__).parent
STYLE = (HERE / "front.css").read_text("utf-8")
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False, route_class=ProbeRoute)

templates = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


class Login(NamedTuple):
    email: str
    password: str


class Development(NamedTuple):
    """What is shown in development only."""

    metrics: str  # its URL
    token: bool  # whether metrics need one
    account: Login | None
    mail_page: str | None
    mail_folder: str | None
    mail_server: str | None


@router.get("/")
async def get_front_page(request: Request) -> Response:
    resources: Resources = request.scope["state"]
    settings, app = resources["settings"], request.app
    development = None
    # As with `/metrics`: a service behind a proxy may be one whose ENVIRONMENT was forgotten.
    if settings.environment == "development" and not came_by_proxy(request):
        development = _development(settings, request)
    body = render(app.title, app.summary, app.version, settings.web.docs, development)
    # A 304 has the policy too: it replaces that of the stored page.
    headers = {
        "ETag": etag(body),
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
    }
    if is_known(request.scope, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(body, headers=headers)


@lru_cache(16)
def render(
    title: str, summary: str | None, version: str, docs: bool, development: Development | None
) -> bytes:
    page = templates.get_template("front.html").render(
        title=title,
        summary=summary,
        version=version,
        docs=docs,
        development=development,
        style=STYLE,
    )
    return page.encode()


def _development(settings: ChassisSettings, request: Request) -> Development:
    metrics, mail = settings.metrics, settings.mail.url
    mail_url = urlsplit(mail.get_secret_value() if mail else "")
    host, _ = request.scope["server"]  # not of the request's Host, which a client makes up
    address = f"[{host}]" if ":" in host else host
    account = settings.web.development_account
    return Development(
        f"http://{address}:{metrics.port}/metrics" if metrics.port else "metrics",
        metrics.token is not None,
        Login(*account.get_secret_value().split(maxsplit=1)) if account else None,
        settings.web.development_mail,
        unquote(mail_url.path) if mail_url.scheme == "file" else None,
        mail_url.hostname,
    )
