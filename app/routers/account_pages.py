"""The pages that links in mails lead to, where no front end has them: see PUBLIC_URL.

A page changes nothing: its button sends the token, so programs that follow the links of a mail do
not use it up. It needs no other file, and works under any path prefix.
"""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.about import TITLE
from chassis.routes.docs import PageRoute

TEMPLATES = Path(__file__).parent.parent / "templates"


class Field(NamedTuple):
    label: str
    name: str
    type: str
    autocomplete: str


class Form(NamedTuple):
    """`token`: shown where the address of the page has one, and only there."""

    text: str
    endpoint: str
    button: str
    done: str
    fields: tuple[Field, ...] = ()
    token: bool = True


class Page(NamedTuple):
    heading: str
    forms: tuple[Form, ...]


EMAIL = Field("E-mail address", "email", "email", "email")

VERIFY = Page(
    "Verify your e-mail address",
    (
        Form(
            "Enter the password that you chose when you registered.",
            "v1/users/verify",
            "Verify",
            "Your address is verified. You can log in now.",
            (Field("Password", "password", "password", "current-password"),),
        ),
        Form(
            "Enter your address to get another mail with a link.",
            "v1/users/verify/resend",
            "Send a mail",
            "If this address is still to be verified, a mail is on its way.",
            (EMAIL,),
            token=False,
        ),
    ),
)
RESET_PASSWORD = Page(
    "Set a new password",
    (
        Form(
            "Choose a new password. All devices are then logged out.",
            "v1/users/password-reset/confirm",
            "Set the password",
            "The new password is set. You can log in with it now.",
            (Field("New password", "password", "password", "new-password"),),
        ),
        Form(
            "Enter the address of your account to get a mail with a link.",
            "v1/users/password-reset",
            "Send a mail",
            "If there is an account with this address, a mail is on its way.",
            (EMAIL,),
            token=False,
        ),
    ),
)
CONFIRM_EMAIL = Page(
    "Confirm your new e-mail address",
    (
        Form(
            "From now on you log in with this address.",
            "v1/users/me/email/confirm",
            "Confirm",
            "Your account has the new address now.",
        ),
    ),
)

environment = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
)
template = environment.get_template("account_page.html")
router = APIRouter(include_in_schema=False, route_class=PageRoute)


def hashes(page: str, element: str) -> str:
    found = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = [b64encode(sha256(each.encode()).digest()).decode() for each in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def response_with(page: Page) -> HTMLResponse:
    content = template.render(title=TITLE, page=page)
    policy = (
        f"default-src 'none'; script-src {hashes(content, 'script')}; "
        f"style-src {hashes(content, 'style')}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(content, headers=headers)


@router.get("/verify")
async def get_verify_page() -> HTMLResponse:
    return response_with(VERIFY)


@router.get("/reset-password")
async def get_reset_password_page() -> HTMLResponse:
    return response_with(RESET_PASSWORD)


@router.get("/confirm-email")
async def get_confirm_email_page() -> HTMLResponse:
    return response_with(CONFIRM_EMAIL)
