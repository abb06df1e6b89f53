"""The service's name stands in app/about.py, docker-compose.yml and what Kubernetes is given; all
else derives from it.
"""

import re
import subprocess  # mine

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from app.about import NAME, TITLE, VERSION
from app.main import create_app
from app.settings import Settings
from chassis.cache.settings import CacheSettings
from chassis.database.settings import DatabaseSettings, read_database_settings
from chassis.mail.settings import MailSettings
from chassis.resources import open_resources
from tests.process import ROOT

# mine: begin
PLACES = {"app/about.py": [f'NAME = "{NAME}"'], "docker-compose.yml": [f"name: &name {NAME}"]}
# Compose does not let a file derive the project's name from that of another file.
DEVELOPMENT = {"docker-compose.override.yml": [f"name: {NAME}-development"]}
# kustomize replaces the image's name, and no other name stands in its files.
KUBERNETES = {
    f"deploy/kubernetes/base/{file}": [line]
    for file, line in {
        "kustomization.yaml": f"    newName: registry.example.com/{NAME}",
        "migrate.env": f"DATABASE_URL=mariadb+asyncmy://{NAME}_migrate@mariadb.example.com/{NAME}"
        "?ssl_ca=/etc/ssl/certs/ca-certificates.crt",
        "settings.env": f"DATABASE_NAME={NAME}",
    }.items()
}
PROSE = ("docs/", "make_mine/", "tests/", "README.md", "CHANGELOG.md")


def mentions() -> dict[str, list[str]]:
    """The lines with the name of each file that is or is to be committed, without the prose."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = {}
    for file in subprocess.check_output(listed, cwd=ROOT, text=True).strip("\0").split("\0"):
        path = ROOT / file
        if path.is_file() and not file.startswith(PROSE):
            text = f"{file}\n{path.read_text('utf-8', errors='replace')}"
            lines = [line for line in text.splitlines() if NAME in line.lower()]
            if lines:
                found[file] = [line.partition("  #")[0] for line in lines]
    return found


def test_name_stands_in_one_place_of_the_code_and_those_that_cannot_derive_it():
    assert mentions() == PLACES | DEVELOPMENT | KUBERNETES


# mine: end


def test_name_is_one_that_needs_no_quotes_where_it_stands():
    """In SQL, in URLs, in the names of images and of Compose's projects."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", NAME)


def test_settings_derive_from_the_name(settings: Settings):
    derived = Settings(database=settings.database, redis=settings.redis)

    assert derived.cache.namespace == NAME
    assert derived.tokens.audience == NAME
    assert derived.mail.sender == f"{TITLE} <{NAME}@example.com>"
    for group in (derived.cache, derived.tokens, derived.mail):
        assert group.model_fields_set.isdisjoint({"namespace", "audience", "sender"})


def test_settings_that_are_given_stay(settings: Settings):
    derived = Settings(
        database=settings.database,
        redis=settings.redis,
        cache=CacheSettings(namespace="mine"),
        mail=MailSettings(sender="Sales <sales@example.com>"),
    )

    assert derived.cache.namespace == "mine"
    assert derived.mail.sender == "Sales <sales@example.com>"
    assert derived.tokens.audience == NAME


def test_title_of_the_document_is_the_name(settings: Settings):
    assert create_app(settings).openapi()["info"]["title"] == TITLE


def test_compose_has_the_name_of_the_code():
    compose = (ROOT / "docker-compose.yml").read_text()

    assert re.findall(r"^name: &name (.*)$", compose, re.MULTILINE) == [NAME]


async def test_user_agent_is_the_name(settings: Settings):
    async with open_resources(settings) as resources:
        assert resources["http"].headers["User-Agent"] == f"{NAME}/{VERSION}"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("mariadb+asyncmy://host", f"mariadb+asyncmy://{NAME}@host/{NAME}"),
        ("mariadb+asyncmy://:p%40@host:1?read_timeout=3", None),
        ("mariadb+asyncmy://u@host/other", "mariadb+asyncmy://u@host/other"),
        ("sqlite+aiosqlite:///a.db", "sqlite+aiosqlite:///a.db"),
    ],
)
def test_database_is_named_where_its_url_names_none(
    monkeypatch: pytest.MonkeyPatch, url: str, seen: str | None
):
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DATABASE_NAME", NAME)
    read = make_url(read_database_settings().url.get_secret_value())

    wanted = seen or f"mariadb+asyncmy://{NAME}:p%40@host:1/{NAME}?read_timeout=3"
    assert read == make_url(wanted)


def test_replica_is_named_as_the_primary_is():
    settings = DatabaseSettings.model_validate(
        {"name": NAME, "url": "mariadb+asyncmy://a", "read_url": "mariadb+asyncmy://b"}
    )

    assert isinstance(settings.read_url, SecretStr)
    assert make_url(settings.read_url.get_secret_value()).database == NAME
