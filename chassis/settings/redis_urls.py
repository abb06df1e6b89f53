"""URLs of Redis: one server, a primary that Sentinels watch, or a cluster."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from redis.asyncio.connection import parse_url

# Parameters of a Redis URL; others have settings, or must not be changed.
PARAMETERS = {"db", "client_name", "health_check_interval", "socket_keepalive"}
TLS_FILES = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}
TLS_PARAMETERS = {
    *TLS_FILES,
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version"),
}
SENTINEL_PARAMETERS = {"sentinel_username": "username", "sentinel_password": "password"}
SENTINEL_PORT = 26379

Kind = Literal["server", "sentinel", "cluster"]


class RedisTarget(NamedTuple):
    """What a URL leads to.

    `server` is a URL as redis-py reads them, with the host only of a single server. `nodes` are
    those of the Sentinels, or of nodes of a cluster.
    """

    kind: Kind
    server: str
    nodes: list[str]
    primary: str = ""  # its name, as Sentinels know it


def read_redis_url(url: str) -> RedisTarget:
    """Raises ValueError."""
    scheme, _, rest = url.partition("://")
    scheme, _, kind = scheme.lower().partition("+")
    if not kind:
        return RedisTarget("server", url, [])
    if kind not in ("sentinel", "cluster") or scheme not in ("redis", "rediss"):
        raise ValueError(url)
    # `urlsplit` takes no list of hosts where one is an IPv6 address.
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    parts = urlsplit(f"//host{rest.removeprefix(authority)}")
    credentials, at, listed = authority.rpartition("@")
    hosts = listed.split(",")
    if kind == "cluster":
        place = f"{parts.path}?{parts.query}"
        nodes = [f"{scheme}://{credentials}{at}{host}{place}" for host in hosts]
        return RedisTarget("cluster", nodes[0], nodes)
    name, _, database = parts.path.removeprefix("/").partition("/")
    parameters = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    # The login of the URL is that of the servers; Sentinels have one of their own, or none.
    login = {
        SENTINEL_PARAMETERS[key]: parameters.pop(key)
        for key in SENTINEL_PARAMETERS.keys() & parameters.keys()
    }
    server = f"{scheme}://{credentials}{at}{hosts[0]}/{database}?{urlencode(parameters)}"
    parameters.pop("db", None)
    query = urlencode(parameters | login)
    nodes = [f"{scheme}://{_with_port(host)}?{query}" for host in hosts]
    return RedisTarget("sentinel", server, nodes, name)


def _with_port(host: str) -> str:
    return host if re.search(r":\d*$", host.rpartition("]")[2]) else f"{host}:{SENTINEL_PORT}"


def is_cluster(secret: SecretStr | None) -> bool:
    return secret is not None and read_redis_url(secret.get_secret_value()).kind == "cluster"


def _redis_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    try:
        target = read_redis_url(url)
        for each in [target.server, *target.nodes]:
            parse_url(each)
        parts = urlsplit(target.server)
        parameters = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        if "#" in url:  # what follows would be ignored, the host above all
            raise ValueError
    except ValueError:
        raise PydanticCustomError(
            "url",
            "is not a redis://, rediss:// or unix:// URL, nor one with +sentinel or +cluster; "
            "percent-encode what is special in its password, or set REDIS_PASSWORD",
        ) from None
    if (reason := _fault_of(target, parts, parameters)) is not None:
        raise PydanticCustomError("url", "{reason}", {"reason": reason})
    return secret


def _fault_of(target: RedisTarget, parts: SplitResult, parameters: dict[str, str]) -> str | None:
    """What redis-py would ignore, or fail over at each connect."""
    if not all(urlsplit(node).hostname for node in target.nodes):
        return "has an empty name in its list of hosts"
    if target.kind == "sentinel" and not target.primary:
        return "names no primary, as in redis+sentinel://host1,host2,host3/mymaster"
    if parts.scheme == "unix" and not parts.path.strip("/"):
        return "names no socket, as in unix:///run/redis.sock"
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        return f"has the path {parts.path}, which is not the number of a database, as in /0"
    for name, value in parameters.items():
        if name in TLS_PARAMETERS and parts.scheme != "rediss":
            return f"has the parameter {name}, which needs rediss://"
        if name not in PARAMETERS | TLS_PARAMETERS:
            own = SENTINEL_PARAMETERS if target.kind == "sentinel" else ()
            known = ", ".join(sorted({*PARAMETERS, *TLS_PARAMETERS, *own}))
            return f"has the parameter {name}; known are {known}"
        if name in TLS_FILES and not Path(value).exists():
            return f"names {value} as its {name}, which does not exist"
    return None


RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
