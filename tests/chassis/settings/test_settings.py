import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings, read_service_settings, read_settings, settings_warnings
from chassis.auth.settings import DEVELOPMENT_KEY, NO_KEY
from chassis.database.settings import database_url as url_of
from chassis.database.settings import replica_urls
from chassis.settings.docs_table import settings_table
from tests.command import run
from tests.databases import sqlite_only
from tests.process import ROOT, TIMEOUT, free_port

ROWS = [row.strip("| ").split(" | ") for row in settings_table(Settings).splitlines()[2:]]
NAMES = [name.strip("`") for name, _, _ in ROWS]
NUMBERS = [name.strip("`") for name, default, _ in ROWS if re.fullmatch(r"`\d+(\.\d+)?`", default)]
URLS = {"DATABASE_URL": "sqlite+aiosqlite:///shop.db", "REDIS_URL": "redis://127.0.0.1"}
PRODUCTION = {
    "ENVIRONMENT": "production",
    "TOKENS_KEY": "k" * 32,
    "FORWARDED_ALLOW_IPS": "10.0.0.0/24,127.0.0.1",
    "PUBLIC_URL": "https://shop.example",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty one to work in, with both URLs in the environment and no other setting."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in URLS.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def secrets(folder: Path) -> Path:
    path = folder / "secrets"
    path.mkdir()
    return path


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """The lines that say what is wrong with them."""
    for name, value in ({"TOKENS_KEY": "k" * 32} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as refusal:
        read_service_settings()
    heading, *lines = str(refusal.value).splitlines()
    assert heading == "The settings are not usable:"
    return [line.strip() for line in lines]


def test_documentation_has_the_table_of_all_settings():
    documented = (ROOT / "docs/settings.md").read_text("utf-8")

    table = [line for line in documented.splitlines() if line.startswith("|")]

    assert "\n".join(table) == settings_table(Settings), "run: python -m app settings"


def test_compose_passes_on_each_limit_and_the_switch_of_the_documentation():
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    defaults = {name.strip("`"): default.strip("`") for name, default, _ in ROWS}
    passed = dict(re.findall(r"^    (\w+): \$\{\1:-(.*)\}$", compose, re.MULTILINE))

    names = [name for name in NAMES if name.startswith("LIMITS_")] + ["WEB_DOCS"]

    assert len(names) > 10
    assert {name: passed.get(name, "").lower() for name in names} == {
        name: defaults[name].lower() for name in names
    }


def test_each_setting_has_its_meaning():
    assert len(NAMES) == len(set(NAMES))
    assert {"DATABASE_POOL_SIZE", "REDIS_URL", "WEB_MAX_REQUESTS_JITTER", "BIND"} <= set(NAMES)
    assert [name for name, _, meaning in ROWS if meaning in {"", "None"}] == []


def test_urls_are_enough():
    settings = read_settings()

    assert settings.environment == "development"
    assert settings.database.pool_size == 20


def test_environment_beats_dotenv_which_beats_a_secret_file(
    monkeypatch: pytest.MonkeyPatch, folder: Path, secrets: Path
):
    def pool_size() -> int:
        return Settings(_secrets_dir=secrets).database.pool_size

    (secrets / "DATABASE_POOL_SIZE").write_text("11")
    of_secret = pool_size()
    (folder / ".env").write_text("DATABASE_POOL_SIZE=12\n")
    of_dotenv = pool_size()
    monkeypatch.setenv("DATABASE_POOL_SIZE", "13")
    of_environment = pool_size()
    monkeypatch.setenv("DATABASE_POOL_SIZE", "")
    of_empty_environment = pool_size()

    assert (of_secret, of_dotenv, of_environment, of_empty_environment) == (11, 12, 13, 12)


def test_settings_of_one_group_may_come_from_all_places(
    monkeypatch: pytest.MonkeyPatch, folder: Path, secrets: Path
):
    (secrets / "DATABASE_PASSWORD").write_text("secret")
    (folder / ".env").write_text("DATABASE_MAX_OVERFLOW=3\n")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "13")

    database = Settings(_secrets_dir=secrets).database

    assert database.password is not None
    assert database.password.get_secret_value() == "secret"
    assert (database.max_overflow, database.pool_size) == (3, 13)


@pytest.mark.parametrize("name", ["TOKENS_KEY", "tokens_key"])
@pytest.mark.parametrize("content", ["the-key", "the-key\n", "the-key\r\n"])
def test_line_end_of_a_secret_file_is_no_part_of_the_secret(secrets: Path, name: str, content: str):
    (secrets / name).write_text(content)

    settings = Settings(_secrets_dir=secrets)

    assert settings.tokens.key.get_secret_value() == "the-key"


@pytest.mark.parametrize("content", ["", "\n"])
def test_empty_secret_file_is_no_secret(secrets: Path, content: str):
    (secrets / "mail_password").write_text(content)
    (secrets / "tokens_old_keys").write_text(content)

    settings = Settings(_secrets_dir=secrets)

    assert (settings.mail.password, settings.tokens.old_keys) == (None, None)


def test_secrets_of_others_do_no_harm(secrets: Path):
    """Kubernetes mounts a service account below /run/secrets."""
    account = secrets / "kubernetes.io/serviceaccount"
    account.mkdir(parents=True)
    (account / "token").write_text("token")
    (secrets / "web_unheard_of").write_text("x")

    assert Settings(_secrets_dir=secrets).database.pool_size == 20


MARIADB = "mariadb+asyncmy://u:hunter2@h/shop"


def test_replicas_have_commas_between_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "mariadb+asyncmy://shop@primary/shop")
    monkeypatch.setenv("DATABASE_NAME", "shop")
    urls = "mariadb+asyncmy://shop:a%2Cb@one/shop?read_timeout=3, mariadb+asyncmy://two:3307"
    monkeypatch.setenv("DATABASE_READ_URL", urls)

    one, two = replica_urls(read_settings().database)

    assert (one.host, one.password, one.query) == ("one", "a,b", {"read_timeout": "3"})
    assert (two.host, two.port, two.database) == ("two", 3307, "shop")


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (f"{MARIADB},", "is not a URL that starts with mariadb+asyncmy:// or sqlite+aiosqlite://"),
        ("mariadb+asyncmy://u:hunter,2@h/shop", "is not a URL that starts with mariadb+asyncmy://"),
        (f"{MARIADB},{MARIADB.replace('/shop', '2/shop?ssl=1')}", "has the parameter ssl, "),
        (f"{MARIADB},{MARIADB.replace('/shop', ':3306/other')}", "names a server twice"),
    ],
)
def test_replica_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, urls: str, reason: str
):
    [line] = refused(monkeypatch, DATABASE_READ_URL=urls)

    assert line.startswith(f"DATABASE_READ_URL: {reason}")
    assert reason == "names a server twice" or "of 2; a comma within one is %2C" in line
    assert "hunter" not in line


def test_password_goes_into_all_database_urls(monkeypatch: pytest.MonkeyPatch):
    password = "p@ss/w:rd%"
    monkeypatch.setenv("DATABASE_URL", "mariadb+asyncmy://shop:old@primary/shop")
    monkeypatch.setenv("DATABASE_READ_URL", "mariadb+asyncmy://shop@replica/shop")
    monkeypatch.setenv("DATABASE_PASSWORD", password)

    database = read_settings().database

    write, [read] = url_of(database), replica_urls(database)
    assert (write.host, write.username, write.password) == ("primary", "shop", password)
    assert (read.host, read.username, read.password) == ("replica", "shop", password)


@pytest.mark.parametrize("missing", [["DATABASE_URL"], ["REDIS_URL"], [*URLS]])
@pytest.mark.parametrize("others", [{}, {"DATABASE_POOL_SIZE": "5", "REDIS_TIMEOUT": "1"}], ids=len)
def test_missing_url_is_named(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], others: dict[str, str]
):
    lines = refused(monkeypatch, **dict.fromkeys(missing, ""), **others)

    assert lines == [f"{name}: is not set; see docs/settings.md" for name in missing]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, name: str):
    [line] = refused(monkeypatch, **{name: "many"})

    assert line.startswith(f"{name}: Input should be a valid ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_POOL_SIZE", "1"),
        ("DATABASE_POOL_TIMEOUT", "0"),
        ("DATABASE_MAX_OVERFLOW", "-1"),
        ("DATABASE_ECHO", "perhaps"),
        ("REDIS_TIMEOUT", "-1"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_GRACEFUL_TIMEOUT", "5"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("LOG_LEVEL", "LOUD"),
        ("ENVIRONMENT", "prod"),
    ],
)
def test_value_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    [line] = refused(monkeypatch, **{name: value})

    assert line.startswith(f"{name}: Input should be ")


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_READ_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "shop",
        "mysql://u:hunter2@h/shop",
        "mysql+asyncmy://u:hunter2@h/shop",
        "postgresql+asyncpg://u:hunter2@h/shop",
        "mariadb+asyncmy://u:hunter2@h:port/shop",
    ],
)
def test_url_of_a_database_that_is_not_supported_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
):
    lines = refused(monkeypatch, **{name: url})

    assert lines == [
        f"{name}: is not a URL that starts with mariadb+asyncmy:// or sqlite+aiosqlite://"
    ]


def test_replica_is_a_mariadb(monkeypatch: pytest.MonkeyPatch):
    lines = refused(monkeypatch, DATABASE_READ_URL="sqlite+aiosqlite:///shop.db")

    assert lines == ["DATABASE_READ_URL: is no MariaDB: SQLite has no replicas; leave it unset"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"{MARIADB}?ssl=true", "has the parameter ssl, which the driver does not know; for TLS"),
        (f"{MARIADB}?ssl_mode=REQUIRED", "has the parameter ssl_mode, which the driver does not"),
        (f"{MARIADB}?sslmode=require", "has the parameter sslmode, which the driver does not know"),
        (
            f"{MARIADB}?tls=1",
            "has the parameter tls, which the driver does not know; for TLS, name",
        ),
        (f"{MARIADB}?timeout=3", "has the parameter timeout; known are charset, init_command, "),
        (f"{MARIADB}?pool_size=3", "has the parameter pool_size; known are charset, "),
        (f"{MARIADB}?charset=utf8mb4&charset=utf8mb4", "has the parameter charset twice"),
        (f"{MARIADB}?charset=latin1", "has a charset other than utf8mb4"),
        (f"{MARIADB}?read_timeout=soon", "has a parameter of another type: "),
        (f"{MARIADB}?ssl_ca=/nowhere", "names /nowhere as its ssl_ca, which does not exist"),
        (f"{MARIADB}?ssl_ca=.env", "has TLS that cannot be used: "),
        (f"{MARIADB}?ssl_capath=.&ssl_key=.env", "has ssl_key without ssl_cert"),
        (
            f"{MARIADB}?ssl_cipher=HIGH",
            "has TLS without ssl_ca or ssl_capath: no certificate would",
        ),
        (f"{MARIADB}?ssl_check_hostname=false", "has TLS without ssl_ca or ssl_capath: "),
        ("mariadb+asyncmy://u:hunter2@h", "names no database, as in mariadb+asyncmy://user@host/"),
        ("sqlite+aiosqlite:///no/shop.db", "names no/shop.db, but there is no folder "),
        ("sqlite+aiosqlite:///.", "names ., which is a folder; name a file in it"),
        ("sqlite+aiosqlite://", "names no file; each connection would have a database of its own"),
        ("sqlite+aiosqlite:///:memory:", "names no file; each connection would have"),
        ("sqlite+aiosqlite://host/shop.db", "has a host; a file is sqlite+aiosqlite:////absolute"),
        ("sqlite+aiosqlite:///shop.db?mode=ro", "has the parameter mode; known are cached_"),
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_READ_URL"])
def test_part_of_a_database_url_that_no_driver_can_use_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, url: str, reason: str
):
    (folder / ".env").write_text("\n")

    [line] = refused(monkeypatch, **{name: url})

    assert line.startswith(f"{name}: {reason}")
    assert "hunter2" not in line


def test_a_database_file_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path
):
    file = folder / "shop.db"
    file.touch()
    # Whoever runs the tests as root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != file)

    [line] = refused(monkeypatch, DATABASE_URL=f"sqlite+aiosqlite:///{file}")

    assert line == f"DATABASE_URL: names {file}, but {file} cannot be written by this user"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?charset=utf8mb4&unix_socket=%2Frun%2Fmysqld.sock",
        "?read_timeout=30",
        "?ssl_capath=.&ssl_cipher=HIGH",
    ],
)
def test_parameters_of_a_database_url_that_the_driver_knows_are_accepted(
    monkeypatch: pytest.MonkeyPatch, query: str
):
    monkeypatch.setenv("DATABASE_URL", MARIADB + query)

    assert url_of(read_settings().database).database == "shop"


@pytest.mark.parametrize("name", ["REDIS_URL", "JOBS_URL"])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:hunter2@h?foo=bar", "has the parameter foo; known are client_name, db, "),
        ("redis://:hunter2@h?decode_responses=true", "has the parameter decode_responses; known"),
        ("redis://:hunter2@h?max_connections=3", "has the parameter max_connections; known are "),
        (
            "redis://:hunter2@h?ssl_cert_reqs=none",
            "has the parameter ssl_cert_reqs, which needs re",
        ),
        ("rediss://:hunter2@h?ssl_ca_certs=/nowhere", "names /nowhere as its ssl_ca_certs, which"),
        ("redis://:hunter2@h/shop", "has the path /shop, which is not the number of a database"),
        ("redis://:hunter2@h/-1", "has the path /-1, which is not the number of a database"),
        ("redis://:hunter2@h/1/2", "has the path /1/2, which is not the number of a database"),
        ("unix://", "names no socket, as in unix:///run/redis.sock"),
        ("redis+sentinel://:hunter2@a,b", "names no primary, as in redis+sentinel://host1,host2"),
        ("redis+sentinel://:hunter2@a,b/first/shop", "has the path /shop, which is not the number"),
        ("redis+sentinel://:hunter2@a,,b/first", "has an empty name in its list of hosts"),
        ("redis+sentinel://a/first?foo=bar", "has the parameter foo; known are client_name, db, "),
        ("redis+cluster://:hunter2@a,b/shop", "has the path /shop, which is not the number of a"),
        ("redis+cluster://a,b?sentinel_password=hunter2", "has the parameter sentinel_password; "),
        ("redis+cluster://a,b?ssl_cert_reqs=none", "has the parameter ssl_cert_reqs, which needs"),
    ],
)
def test_part_of_a_redis_url_that_the_client_cannot_use_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, reason: str
):
    [line] = refused(monkeypatch, **{name: url})

    assert line.startswith(f"{name}: {reason}")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1", "http://h", "redis://:hun/ter2@h", "redis://:hun#ter2@h", "redis://h?db=x"),
        *("redis+ring://h", "unix+sentinel:///h/first", "redis+sentinel://:hun/ter2@a,b:1/first"),
    ],
)
def test_url_that_is_not_of_redis_is_refused(monkeypatch: pytest.MonkeyPatch, url: str):
    [line] = refused(monkeypatch, REDIS_URL=url)

    assert line.startswith("REDIS_URL: is not a redis://, rediss:// or unix:// URL, nor one wi")
    assert "hun" not in line


@pytest.mark.parametrize(
    "url",
    [
        *("redis://h", "rediss://u:p@h:6380/1", "unix:///run/redis.sock?db=2"),
        "redis+sentinel://u:p@a,b:26380,[::1]/first/1?sentinel_password=p%2Fq",
        "rediss+cluster://:p@a:6380,[::1]:6380,c?ssl_cert_reqs=none",
    ],
)
def test_url_of_redis_is_accepted(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("REDIS_URL", url)

    assert read_settings().redis.url.get_secret_value() == url


@pytest.mark.parametrize("name", ["REDIS_URL", "JOBS_URL"])
@pytest.mark.parametrize("namespace", ["shop", "{shop}"])
def test_keys_of_a_cluster_have_one_hash_tag(
    monkeypatch: pytest.MonkeyPatch, name: str, namespace: str
):
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    without = read_settings().cache.namespace
    monkeypatch.setenv(name, "redis+cluster://a,b,c")

    assert read_settings().cache.namespace == "{shop}"
    assert without == namespace


def test_all_that_is_wrong_is_named_at_once_and_no_secret(monkeypatch: pytest.MonkeyPatch):
    lines = refused(
        monkeypatch,
        DATABASE_URL="mariadb+asyncmy://shop:hunter2@h/shop",
        DATABASE_PASSWORD="hunter2",
        DATABASE_POOL_SIZE="many",
        REDIS_URL="http://:hunter2@h",
        REDIS_PASSWORD="hunter2",
        TOKENS_KEY="hunter2",
        ENVIRONMENT="production",
        PORT="http",
    )

    names = [line.split(":")[0] for line in lines]
    expected = ["DATABASE_POOL_SIZE", "PORT", "PUBLIC_URL", "REDIS_URL", "TOKENS_KEY"]
    assert sorted(names) == expected
    assert "hunter2" not in "".join(lines)


def warnings_of(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """The settings are read, and this is what is said of them."""
    before = settings_warnings()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    read_settings()
    return [line for line in settings_warnings() if line not in before]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LOG_LEVLE", "LOG_LEVEL"),
        ("log_levle", "LOG_LEVEL"),
        ("LOG_LVL", "LOG_LEVEL"),
        ("LOGS_LEVEL", "LOG_LEVEL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABSE_POOL_SIZE", "DATABASE_POOL_SIZE"),
        ("DATABASE_POOLSIZE", "DATABASE_POOL_SIZE"),
        ("WEB_CONCURENCY", "WEB_CONCURRENCY"),
        ("METRICS_PORTS", "METRICS_PORT"),
        ("TOKEN_KEY", "TOKENS_KEY"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("FORWARDED_ALLOWED_IPS", "FORWARDED_ALLOW_IPS"),
    ],
)
def test_misspelt_name_is_told_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, meant: str
):
    in_environment = warnings_of(monkeypatch, **{name: "1"})
    monkeypatch.delenv(name)
    (folder / ".env").write_text(f"{name}=1\n")
    in_dotenv = settings_warnings()

    assert in_environment == [f"{name.upper()} is not a setting; did you mean {meant}?"]
    assert in_dotenv == [f"{name.upper()} in .env is not a setting; did you mean {meant}?"]


def test_misspelt_secret_is_told(monkeypatch: pytest.MonkeyPatch, secrets: Path):
    (secrets / "DATABASE_PASWORD").write_text("hunter2")
    (secrets / "mariadb_root_password").write_text("hunter2")
    monkeypatch.setitem(Settings.model_config, "secrets_dir", str(secrets))

    [warning] = settings_warnings()

    assert warning.startswith(f"DATABASE_PASWORD in {secrets} is not a setting; did you mean")
    assert warning.endswith(" DATABASE_PASSWORD?")


def test_unknown_name_of_dotenv_is_told_unless_compose_knows_it(folder: Path):
    (folder / ".env").write_text("DATABASE_HOST=db\nAPI_CPUS=2\nCOMPOSE_PROJECT_NAME=x\n")
    (folder / "docker-compose.yml").write_text('cpus: "${API_CPUS:-2}"\n')

    assert settings_warnings() == ["DATABASE_HOST in .env is not a setting; see docs/settings.md"]


@pytest.mark.parametrize("group", ["DATABASE", "REDIS", "WEB", "METRICS", "FILES", "JOBS", "LOG"])
def test_what_kubernetes_sets_for_a_service_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, group: str
):
    address = "tcp://10.0.0.1:9000"
    warnings = warnings_of(
        monkeypatch,
        **{
            f"{group}_PORT": address,
            f"{group}_METRICS_PORT": address,
            f"{group}_SERVICE_HOST": "10.0.0.1",
            f"{group}_SERVICE_PORT": "9000",
            f"{group}_SERVICE_PORT_HTTP": "9000",
            f"{group}_PORT_9000_TCP": address,
            f"{group}_PORT_9000_TCP_ADDR": "10.0.0.1",
            f"{group}_PORT_9000_TCP_PORT": "9000",
            f"{group}_PORT_9000_TCP_PROTO": "tcp",
        },
    )

    ours = {f"{group}_PORT", f"{group}_METRICS_PORT"} & {*NAMES}
    expected = [f"{name} is ignored: {address} is the address of a service" for name in ours]
    assert [line.rpartition(",")[0] for line in warnings] == expected
    assert (read_settings().metrics.port, read_settings().jobs.metrics_port) == (None, None)


def test_an_address_of_a_service_does_not_hide_what_dotenv_sets(
    monkeypatch: pytest.MonkeyPatch, folder: Path
):
    (folder / ".env").write_text("METRICS_PORT=9100\nPORT=9000\n")
    monkeypatch.setenv("METRICS_PORT", "tcp://10.0.0.1:9000")
    monkeypatch.setenv("PORT", "udp://10.0.0.1:9000")

    assert read_settings().ports == [9000, 9100]


GROUPS = sorted({name.partition("_")[0] for name in NAMES if "_" in name} - {"FORWARDED", "PUBLIC"})


@pytest.mark.parametrize("name", [*GROUPS, "log"])
def test_a_group_is_no_variable_and_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str
):
    warnings = warnings_of(monkeypatch, **{name: "hunter2"})

    if name == "MAIL":
        assert warnings == []  # every login shell sets it
    else:
        [warning] = warnings
        assert warning.startswith(f"{name.upper()} is ignored: ")
        assert "hunter2" not in warning


def test_variables_of_others_are_not_mentioned(monkeypatch: pytest.MonkeyPatch):
    names = "HTTP_PROXY HTTPS_PROXY NO_PROXY LOG_DIR LOGNAME MAILCHECK TEST_DATABASE_URL JOB_URL"
    names += " DATABASE_HOST DATABASE_USER DATABASE_SSL DATABASE_NAME REDIS_HOST REDIS_DB BASE_URL"
    names += " OTEL_EXPORTER_OTLP_ENDPOINT AWS_REGION XDG_CACHE_HOME FILES_DIR WEB_PORT CACHE_DIR"

    assert warnings_of(monkeypatch, **dict.fromkeys(names.split(), "x")) == []


def test_a_missing_url_is_told_with_the_misspelt_name(monkeypatch: pytest.MonkeyPatch):
    lines = refused(monkeypatch, DATABASE_URL="", DATABSE_URL="sqlite+aiosqlite:///shop.db")

    assert lines == [
        "DATABASE_URL: is not set; see docs/settings.md",
        "DATABSE_URL is not a setting; did you mean DATABASE_URL?",
    ]


def test_a_port_that_is_neither_number_nor_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    [line] = refused(monkeypatch, METRICS_PORT="abc")

    assert line.startswith("METRICS_PORT: Input should be a valid integer")


@sqlite_only
def test_commands_tell_misspelt_names(folder: Path, environment: dict[str, Any]):
    environment["LOG_LEVLE"] = "debug"
    warning = "LOG_LEVLE is not a setting; did you mean LOG_LEVEL?"

    _, findings = check(folder, environment)
    _, _, errors = run(folder, "jobs", **environment)

    assert warning in findings["settings"]
    assert errors == f"Warning: {warning}\n"


def test_dotenv_that_is_no_text_is_one_clear_line(folder: Path):
    (folder / ".env").write_bytes(b"PORT=\xff\n")

    with pytest.raises(SystemExit, match=r"^The settings cannot be read: .*utf-8"):
        read_settings()


def test_good_production_settings_are_accepted(monkeypatch: pytest.MonkeyPatch):
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)

    assert read_settings().environment == "production"


def test_half_of_the_credentials_of_a_bucket_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FILES_ACCESS_KEY_ID", "key")

    with pytest.raises(SystemExit, match=r"(?m)^  FILES_SECRET_ACCESS_KEY: is not set"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FILES_URL", "/var/lib/shop"),
        ("FILES_URL", "file://host/folder"),
        ("FILES_URL", "s3://"),
        ("FILES_URL", "https://bucket.example"),
        ("FILES_ENDPOINT", "s3.example"),
        ("MAIL_URL", "mail.example"),
        ("MAIL_URL", "smtp://"),
        ("MAIL_URL", "smtp://host:99999"),
        ("MAIL_URL", "smtp://host/folder"),
        ("MAIL_URL", "smtp://user:1#2@host"),
        ("MAIL_URL", "file://host/folder"),
        *(("MAIL_SENDER", sender) for sender in ("Shop", "shop@", "@a.example", "a@b@c")),
        ("MAIL_SENDER", "Shop <b\u00fc@example.com>"),
        ("MAIL_SENDER", "a@example.com, b@example.com"),
        ("MAIL_SENDER", "shop@\u2603.example"),
    ],
)
def test_odd_addresses_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit, match=rf"(?m)^  {name}: (is not|has for)"):
        read_settings()


@pytest.mark.parametrize("old", ["", "o" * 32])
def test_production_refuses_a_weak_key(monkeypatch: pytest.MonkeyPatch, old: str):
    keys = ("o" * 32, "k" * 31) if old else ("k" * 31, "")
    variables = dict(zip(("TOKENS_KEY", "TOKENS_OLD_KEYS"), keys, strict=True))
    [line] = refused(monkeypatch, **PRODUCTION | variables)

    assert line.startswith("TOKENS_KEY: production needs a secret of at least 32 characters")
    assert "k" * 31 not in line


PUBLISHED = [
    {"TOKENS_KEY": ""},
    {"TOKENS_KEY": DEVELOPMENT_KEY},
    {"TOKENS_KEY": "k" * 32, "TOKENS_OLD_KEYS": f"{'o' * 32}, {DEVELOPMENT_KEY}"},
]


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("keys", PUBLISHED)
def test_a_service_refuses_the_published_key(
    monkeypatch: pytest.MonkeyPatch, environment: str, keys: dict[str, str]
):
    """Not even as an old one, whose tokens still count."""
    variables = PRODUCTION | {"ENVIRONMENT": environment} | keys

    assert refused(monkeypatch, **variables) == [NO_KEY]


@pytest.mark.parametrize(
    "command",
    [
        ["gunicorn", "--config", str(ROOT / "gunicorn_config.py")],
        ["uvicorn", "app.main:create_app", "--factory"],
    ],
    ids=["gunicorn", "uvicorn"],
)
def test_service_does_not_start_with_the_published_key(folder: Path, command: list[str]):
    variables = PRODUCTION | {"ENVIRONMENT": "development", "PORT": str(free_port())}
    variables |= PUBLISHED[0]
    process = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )

    lines = (process.stdout + process.stderr).strip().splitlines()
    assert process.returncode != 0
    assert lines == ["The settings are not usable:", f"  {NO_KEY}"]


def test_what_signs_no_tokens_needs_no_key(monkeypatch: pytest.MonkeyPatch):
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TOKENS_KEY")

    assert read_settings().tokens.is_published


@pytest.mark.parametrize("proxies", ["*", "10.0.0.1,*"])
def test_production_refuses_addresses_that_anyone_forges(
    monkeypatch: pytest.MonkeyPatch, proxies: str
):
    [line] = refused(monkeypatch, **PRODUCTION | {"FORWARDED_ALLOW_IPS": proxies})

    assert line.startswith("FORWARDED_ALLOW_IPS: ")
    assert "for example 10.0.0.0/24" in line


def test_production_names_all_that_it_refuses_at_once(monkeypatch: pytest.MonkeyPatch):
    lines = refused(
        monkeypatch,
        ENVIRONMENT="production",
        FORWARDED_ALLOW_IPS="*",
        DATABASE_URL="",
        REDIS_URL="",
        TOKENS_KEY="",
    )

    names = {line.split(":")[0] for line in lines}
    servers = {"DATABASE_URL", "REDIS_URL"}
    assert names == servers | {"TOKENS_KEY", "FORWARDED_ALLOW_IPS", "PUBLIC_URL"}


@pytest.mark.parametrize("url", ["", "https://shop.example/?a=b", "https://shop.example/#a", "x"])
def test_links_of_mails_need_an_address(monkeypatch: pytest.MonkeyPatch, url: str):
    [line] = refused(monkeypatch, **PRODUCTION | {"PUBLIC_URL": url})

    assert line.startswith("PUBLIC_URL: ")


@pytest.mark.parametrize("names", ["a.example,b.example", "a.example b.example", "a.example"])
def test_links_of_mails_lead_to_the_first_of_several_names(
    monkeypatch: pytest.MonkeyPatch, names: str
):
    monkeypatch.setenv("PUBLIC_URL", f"https://{names}")

    assert read_settings().link("/verify") == "https://a.example/verify"


def test_addresses_are_verified_in_production_unless_that_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
):
    development = read_settings()
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    production = read_settings()
    monkeypatch.setenv("USERS_VERIFY", "false")

    assert [each.users.verify for each in (development, production)] == [False, True]
    assert read_settings().users.verify is False
    assert production.link("/verify") == "https://shop.example/verify"
    assert development.link("/verify") == "http://127.0.0.1:8000/verify"


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "mariadb+asyncmy://shop:hunter2@primary/shop")
    monkeypatch.setenv("DATABASE_READ_URL", "mariadb+asyncmy://shop:hunter2@replica/shop")
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@h")
    monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
    monkeypatch.setenv("TOKENS_KEY", "hunter2")

    settings = read_settings()

    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "pool_size" in shown
        assert "hunter2" not in shown


def check(folder: Path, environment: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """The exit code of `python -m app check`, and what it says of each check."""
    code, output, errors = run(folder, "check", **environment)
    assert errors == ""
    assert "hunter2" not in output
    rows = [row.strip("│ \n").split("│") for row in output.splitlines() if row.startswith("│")]
    return code, {name.strip(): f"{result.strip()}: {detail}" for name, result, detail in rows}


def test_check_of_what_is_ready_is_ok(folder: Path, environment: dict[str, Any]):
    code, findings = check(folder, environment)

    assert code == 0
    assert findings.keys() == {
        *("settings", "database", "redis", "limits", "mail", "schema", "connections")
    }
    assert [name for name, finding in findings.items() if not finding.startswith("ok: ")] == []


@sqlite_only
def test_check_puts_a_file_where_files_are_kept(folder: Path, environment: dict[str, Any]):
    (folder / "file").touch()
    for url, word in ((f"file://{folder}/files", "ok: "), (f"file://{folder}/file", "failed: ")):
        code, findings = check(folder, environment | {"FILES_URL": url})

        assert (code == 0) == (word == "ok: ")
        assert findings["files"].startswith(word)
        assert url in findings["files"]
    assert not [*(folder / "files" / "objects").iterdir()]


@sqlite_only
def test_check_fails_where_anybody_can_sign_tokens(folder: Path, environment: dict[str, Any]):
    code, findings = check(folder, environment | {"TOKENS_KEY": ""})

    assert code == 1
    assert findings["settings"] == f"failed:  {NO_KEY}"


@sqlite_only
def test_check_names_a_schema_that_is_not_migrated(folder: Path, environment: dict[str, Any]):
    environment["DATABASE_URL"] = f"sqlite+aiosqlite:///{folder}/new.db"

    code, findings = check(folder, environment)

    assert code == 1
    assert findings["database"].startswith("ok: ")
    assert findings["schema"].startswith("failed: ")
    assert "run: python -m app migrate" in findings["schema"]


@sqlite_only
def test_check_names_every_server_that_does_not_answer(folder: Path, environment: dict[str, Any]):
    port = free_port()
    replica = f"mariadb+asyncmy://shop:hunter2@127.0.0.1:{port}/replica"
    environment |= {
        "DATABASE_URL": f"mariadb+asyncmy://shop:hunter2@127.0.0.1:{port}/shop",
        "DATABASE_READ_URL": f"{replica},{replica.replace('127.0.0.1', 'localhost')}",
        "REDIS_URL": f"redis://:hunter2@127.0.0.1:{port}",
        "JOBS_URL": f"redis://127.0.0.1:{port}",
    }

    code, findings = check(folder, environment)

    assert code == 1
    servers = {"database", f"replica 127.0.0.1:{port}", f"replica localhost:{port}"}
    assert findings.keys() == {"settings", *servers, "redis", "queue", "mail"}
    for name in (*servers, "redis", "queue"):
        assert findings[name].startswith("failed: ")
        assert str(port) in findings[name]


@sqlite_only
def test_check_goes_on_without_redis(folder: Path, environment: dict[str, Any]):
    environment["REDIS_URL"] = f"unix://{folder}/nowhere"

    code, findings = check(folder, environment)

    assert code == 1
    assert findings["redis"].startswith("failed: ")
    assert findings["schema"].startswith("ok: ")


def test_check_of_unusable_settings_is_what_is_wrong_and_nothing_else(folder: Path):
    code, output, errors = run(folder, "check", REDIS_URL="http://:hunter2@h", PORT="http")

    assert (code, output) == (1, "")
    assert [line.split(":")[0] for line in errors.splitlines()] == [
        "The settings are not usable",
        "  PORT",
        "  REDIS_URL",
    ]
    assert "hunter2" not in errors
