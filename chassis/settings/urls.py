"""URLs of servers: one that its client cannot use is refused with the reason."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from redis.asyncio.connection import parse_url

from chassis.text.email_address import read_sender

# Parameters of a Redis URL; others have settings, or must not be changed.
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
        if "#" in url:  # what follows would be ignored, the host above all
            raise ValueError
    except ValueError:
        raise PydanticCustomError(
            "url",
            "is not a redis://, rediss:// or unix:// URL; "
            "percent-encode what is special in its password, or set REDIS_PASSWORD",
        ) from None
    if (reason := _fault_of(parts, parameters)) is not None:
        raise PydanticCustomError("url", "{reason}", {"reason": reason})
    return secret


def _fault_of(parts: SplitResult, parameters: dict[str, str]) -> str | None:
    """What redis-py would ignore, or fail over at each connect."""
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
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Sender = Annotated[
    str,
    _require(read_sender, "an address such as Sales <sales@example.com>, in ASCII before the @"),
]
