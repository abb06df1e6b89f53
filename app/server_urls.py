"""Addresses of servers, refused with a reason where no driver of ours can use them."""

from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.email_address import read_sender

# Not `mysql+asyncmy`: that dialect leaves out the collation of our tables.
DRIVERS = ("mariadb+asyncmy", "sqlite+aiosqlite")


def _database_url(secret: SecretStr) -> SecretStr:
    try:
        given = make_url(secret.get_secret_value()).drivername
    except (ArgumentError, ValueError):
        given = None
    if given not in DRIVERS:
        starts = " or ".join(f"{driver}://" for driver in DRIVERS)
        raise PydanticCustomError("url", f"is not a URL that starts with {starts}")
    return secret


def _replica_url(secret: SecretStr) -> SecretStr:
    if _database_url(secret).get_secret_value().startswith("sqlite"):
        raise PydanticCustomError("url", "is no MariaDB: SQLite has no replicas; leave it unset")
    return secret


def _redis_url(secret: SecretStr) -> SecretStr:
    try:
        parse_url(secret.get_secret_value())
    except ValueError:
        raise PydanticCustomError(
            "url",
            "is not a redis://, rediss:// or unix:// URL; "
            "percent-encode what is special in its password, or set REDIS_PASSWORD",
        ) from None
    return secret


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
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
MailUrl = Annotated[SecretStr, AfterValidator(_mail_url)]
ReplicaUrl = Annotated[SecretStr, AfterValidator(_replica_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Sender = Annotated[str, AfterValidator(_sender)]
SellerUrls = Annotated[str, AfterValidator(_seller_urls)]
