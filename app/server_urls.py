"""Addresses of servers, refused with a reason where no driver of ours can use them."""

import re
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from redis.asyncio.connection import parse_url

from app.email_address import read_sender

# What a Redis URL may say behind its question mark; the rest has settings, or would break us.
REDIS_PARAMETERS = {"db", "client_name", "health_check_interval", "socket_keepalive"}
REDIS_TLS_FILES = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}
REDIS_TLS_PARAMETERS = {
    *REDIS_TLS_FILES,
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version"),
}


def _redis_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    try:
        parse_url(url)
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise PydanticCustomError(
            "url",
            "is not a redis://, rediss:// or unix:// URL; "
            "percent-encode what is special in its password, or set REDIS_PASSWORD",
        ) from None
    if (reason := _odd_part(parts, parameters)) is not None:
        raise PydanticCustomError("url", "{reason}", {"reason": reason})
    return secret


def _odd_part(parts: SplitResult, parameters: dict[str, str]) -> str | None:
    """The part that redis-py would ignore, or stumble over with each connection."""
    if parts.scheme == "unix" and not parts.path.strip("/"):
        return "names no socket, as in unix:///run/redis.sock"
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        return f"has the path {parts.path}, which is not the number of a database, as in /0"
    for name, value in parameters.items():
        if name in REDIS_TLS_PARAMETERS and parts.scheme != "rediss":
            return f"has the parameter {name}, which needs rediss://"
        if name not in REDIS_PARAMETERS | REDIS_TLS_PARAMETERS:
            known = ", ".join(sorted(REDIS_PARAMETERS | REDIS_TLS_PARAMETERS))
            return f"has the parameter {name}; known are {known}"
        if name in REDIS_TLS_FILES and not Path(value).exists():
            return f"names {value} as its {name}, which does not exist"
    return None


def _mail_url(secret: SecretStr) -> SecretStr:
    if not _can_take_mail(secret.get_secret_value()):
        raise PydanticCustomError(
            "url", "is not a URL such as smtp://user@host:587, smtps://host or file:///folder"
        )
    return secret


def _can_take_mail(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "file":
        return bool(parts.path) and not parts.netloc
    is_server = parts.scheme in ("smtp", "smtps") and bool(parts.hostname)
    return is_server and port != 0 and not parts.path.strip("/")


def _files_url(text: str) -> str:
    parts = urlsplit(text)
    is_folder = parts.scheme == "file" and bool(parts.path) and not parts.netloc
    is_bucket = parts.scheme == "s3" and bool(parts.netloc)
    if not is_folder and not is_bucket:
        raise PydanticCustomError("url", "is not a URL such as s3://bucket or file:///a/folder")
    return text


def _http_url(text: str) -> str:
    if not _can_be_asked(text):
        raise PydanticCustomError("url", "is not a URL such as https://s3.example.com")
    return text


def _sender(text: str) -> str:
    try:
        read_sender(text)
    except ValueError:
        raise PydanticCustomError(
            "sender", "is not an address such as Books <books@example.com>, in ASCII before the @"
        ) from None
    return text


class Seller(NamedTuple):
    name: str
    url: str  # with `{isbn13}` or `{book_id}` in its path

    def url_of(self, isbn13: str | None, book_id: int) -> str | None:
        """None where it wants an ISBN and there is none."""
        if isbn13 is None and "{isbn13}" in self.url:
            return None
        return self.url.replace("{isbn13}", isbn13 or "").replace("{book_id}", str(book_id))


def read_sellers(text: str) -> list[Seller]:
    """Raises PydanticCustomError."""
    sellers = [Seller(*entry.strip().partition("=")[::2]) for entry in text.split(",") if entry]
    names = [seller.name for seller in sellers]
    if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        raise PydanticCustomError("sellers", "is not NAME=URL,NAME=URL, each name once")
    for seller in sellers:
        if not _can_be_asked(seller.url_of("", 0) or ""):
            raise PydanticCustomError(
                "sellers", f"has for {seller.name} no URL such as https://host/path/{{isbn13}}"
            )
    return sellers


def _can_be_asked(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return is_web and not set("{}") & set(url)


def _seller_urls(text: str) -> str:
    read_sellers(text)
    return text


FilesUrl = Annotated[str, AfterValidator(_files_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
MailUrl = Annotated[SecretStr, AfterValidator(_mail_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Sender = Annotated[str, AfterValidator(_sender)]
SellerUrls = Annotated[str, AfterValidator(_seller_urls)]
