"""Validates database URLs: an error names the part that our drivers cannot use."""

import os
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# Not `mysql+asyncmy`: that dialect leaves out the collation of our tables.
DRIVERS = ("mariadb+asyncmy", "sqlite+aiosqlite")
TLS_FILES = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key")
# Parameters that dialect and driver know, without those that have a setting of their own.
PARAMETERS = {
    "mariadb+asyncmy": {
        *("charset", "unix_socket", "init_command", "program_name", "read_timeout"),
        *("read_default_file", "read_default_group", "server_public_key"),
        *(*TLS_FILES, "ssl_cipher", "ssl_check_hostname"),
    },
    "sqlite+aiosqlite": {"timeout", "cached_statements"},
}


def split_urls(urls: str) -> list[str]:
    """Of a list with commas between them."""
    return [url.strip() for url in urls.split(",")]


def server_name(url: URL) -> str:
    """Host and port, or the socket: for logs, labels of metrics and messages."""
    socket = url.query.get("unix_socket")
    return f"{socket}" if socket else f"{url.host or 'localhost'}:{url.port or 3306}"


def with_database(url: str, name: str) -> str:
    """The URL, with that database and user where it is MariaDB's and has neither."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return url  # refused below
    if parts.get_backend_name() == "sqlite" or parts.database or parts.username:
        return url
    named = parts.set(username=name, database=name)
    return named.render_as_string(hide_password=False)


def _database_url(secret: SecretStr) -> SecretStr:
    try:
        url = make_url(secret.get_secret_value())
    except (ArgumentError, ValueError):
        url = URL.create("unknown")
    if url.drivername not in DRIVERS:
        starts = " or ".join(f"{driver}://" for driver in DRIVERS)
        raise _refusal(f"is not a URL that starts with {starts}")
    _require_known_parameters(url)
    if url.get_backend_name() == "sqlite":
        _require_usable_file(url)
    elif not url.database:
        raise _refusal("names no database, as in mariadb+asyncmy://user@host/database")
    else:
        _require_usable_tls(url)
    return secret


def _replica_urls(secret: SecretStr) -> SecretStr:
    urls = split_urls(secret.get_secret_value())
    names = set()
    for number, url in enumerate(urls, 1):
        try:
            _database_url(SecretStr(url))
        except PydanticCustomError as error:
            if len(urls) == 1:
                raise
            where = f"URL {number} of {len(urls)}; a comma within one is %2C"
            raise _refusal(f"{error.message()} ({where})") from None
        if url.startswith("sqlite"):
            raise _refusal("is no MariaDB: SQLite has no replicas; leave it unset")
        names.add(server_name(make_url(url)))
    if len(names) < len(urls):
        raise _refusal("names a server twice")
    return secret


def _require_known_parameters(url: URL) -> None:
    known = PARAMETERS[url.drivername]
    for name, value in url.query.items():
        if name not in known and name.lower().startswith(("ssl", "tls")):
            raise _refusal(
                f"has the parameter {name}, which the driver does not know; for TLS, name the "
                "authorities that may sign the server's certificate: ?ssl_ca=/path/to/ca.pem"
            )
        if name not in known:
            raise _refusal(f"has the parameter {name}; known are {', '.join(sorted(known))}")
        if not isinstance(value, str):
            raise _refusal(f"has the parameter {name} twice")
    if url.query.get("charset", "utf8mb4") != "utf8mb4":
        raise _refusal("has a charset other than utf8mb4, which is that of the tables")
    try:
        url.get_dialect()().create_connect_args(url)
    except ArgumentError:
        raise _refusal("has a host; a file is sqlite+aiosqlite:////absolute/path.db") from None
    except ValueError as error:
        raise _refusal(f"has a parameter of another type: {error}") from None


def _require_usable_tls(url: URL) -> None:
    given = {name for name in url.query if name.startswith("ssl_")}
    if not given:
        return  # a context takes 20 ms: it reads the authorities of the system
    for name in [name for name in TLS_FILES if name in given]:
        if not Path(str(url.query[name])).exists():
            raise _refusal(f"names {url.query[name]} as its {name}, which does not exist")
    if not given & {"ssl_ca", "ssl_capath"}:
        raise _refusal("has TLS without ssl_ca or ssl_capath: no certificate would be verified")
    if "ssl_key" in given and "ssl_cert" not in given:
        raise _refusal("has ssl_key without ssl_cert")
    tls = {name: str(url.query[name]) if name in given else None for name in TLS_FILES}
    try:
        context = ssl.create_default_context(cafile=tls["ssl_ca"], capath=tls["ssl_capath"])
        if (certificate := tls["ssl_cert"]) is not None:
            context.load_cert_chain(certificate, keyfile=tls["ssl_key"])
        if "ssl_cipher" in given:
            context.set_ciphers(str(url.query["ssl_cipher"]))
    except OSError as error:
        raise _refusal(f"has TLS that cannot be used: {error.strerror or error}") from None


def _require_usable_file(url: URL) -> None:
    if find_spec("aiosqlite") is None:
        raise _refusal("is SQLite's, and its driver is not installed: requirements-embedded.lock")
    if not url.database or url.database == ":memory:":
        raise _refusal("names no file; each connection would have a database of its own")
    file = Path(url.database)
    if not file.parent.is_dir():
        raise _refusal(f"names {file}, but there is no folder {file.parent.absolute()}; make it")
    if file.is_dir():
        raise _refusal(f"names {file}, which is a folder; name a file in it")
    for path in (file.parent, file):  # beside the file, SQLite writes its journal
        if path.exists() and not os.access(path, os.W_OK):
            raise _refusal(f"names {file}, but {path.absolute()} cannot be written by this user")


def _refusal(reason: str) -> PydanticCustomError:
    # What stands in braces would be a field of the message.
    return PydanticCustomError("url", "{reason}", {"reason": reason})


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
ReplicaUrls = Annotated[SecretStr, AfterValidator(_replica_urls)]
