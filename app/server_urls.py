"""URLs of servers, refused with a reason where no driver of ours can use them."""

from typing import Annotated

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

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


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
