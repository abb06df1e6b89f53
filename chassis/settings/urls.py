"""URLs of servers: one that its client cannot use is refused with the reason."""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError

from chassis.text.email_address import read_sender


def _is_folder(parts: SplitResult) -> bool:
    return parts.scheme == "file" and bool(parts.path) and not parts.netloc


def _is_mail_url(url: str) -> bool:
    if "#" in url:
        return False
    parts = urlsplit(url)
    is_server = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.port != 0
    return _is_folder(parts) or (is_server and not parts.path.strip("/"))


def _is_files_url(url: str) -> bool:
    parts = urlsplit(url)
    return _is_folder(parts) or (parts.scheme == "s3" and bool(parts.netloc))


def is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return is_web and not set("{}") & set(url)


def _require(is_valid: Callable[[str], object], such_as: str) -> AfterValidator:
    def check(value: SecretStr | str) -> SecretStr | str:
        with suppress(ValueError):
            if is_valid(value.get_secret_value() if isinstance(value, SecretStr) else value):
                return value
        raise PydanticCustomError("url", f"is not {such_as}")

    return AfterValidator(check)


FilesUrl = Annotated[str, _require(_is_files_url, "a URL such as s3://bucket or file:///a/folder")]
HttpUrl = Annotated[str, _require(is_http_url, "a URL such as https://s3.example.com")]
MailUrl = Annotated[
    SecretStr,
    _require(_is_mail_url, "a URL such as smtp://user@host:587, smtps://host or file:///folder"),
]
Sender = Annotated[
    str,
    _require(read_sender, "an address such as Sales <sales@example.com>, in ASCII before the @"),
]
