"""The service keeps to its OpenAPI document, whatever a client sends: some thousand tries.

`make fuzz` is the same with more.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from benchmarks.contract import VISITOR, Login, Report, check_contract
from chassis.resources import Resources
from tests.app.rows import add_books  # sample
from tests.app.sellers import Sellers  # sample
from tests.databases import mariadb_only
from tests.process import Service, running

# The same requests each time.
BRIEF = ("--max-examples", "3", "--seed", "1", "--generation-deterministic")
# What is public is tried enough by an editor, too.
BRIEFER = (*BRIEF, "--phases", "fuzzing")


# sample: begin
@pytest.fixture
async def books(resources: Resources) -> None:
    async with resources["sessions"].write() as session:
        await add_books(session, 30)


# sample: end
@pytest.fixture
async def service(
    environment: dict[str, Any],
    books: None,  # sample
    sellers: Sellers,  # sample
    tmp_path: Path,
) -> AsyncIterator[Service]:
    environment |= {
        "FILES_URL": f"file://{tmp_path}/files",
        "OFFERS_SELLERS": sellers.setting,  # sample
        "PASSWORDS_TIME_COST": 1,  # a generated logout costs a login
        "PASSWORDS_MEMORY_COST": 64,
        "WEB_CONCURRENCY": 1,
    }
    async with running(tmp_path / "log", app="app.main:create_app()", **environment) as service:
        yield service


@pytest.fixture
async def editor(resources: Resources) -> Login:
    editor = Login("editor@example.com", VISITOR.password)
    for login, role in ((editor, Role.EDITOR), (VISITOR, Role.READER)):
        body = UserCreate(email=login.username, name="Somebody", password=login.password)
        await UserService(resources).create(body, role)
    return editor


@mariadb_only
async def test_anonymous_requests_keep_to_the_contract(service: Service, tmp_path: Path):
    report = await check_contract(service.url, tmp_path, None, *BRIEFER)

    check(report, service)
    assert sum(report.accepted.values()) > 2
    assert sum(report.accepted.values()) > 10  # sample


@pytest.mark.drill
async def test_requests_of_an_editor_keep_to_the_contract(
    service: Service, editor: Login, tmp_path: Path
):
    report = await check_contract(service.url, tmp_path, editor, *BRIEF)

    check(report, service)
    # It was logged in after it had logged out, too.
    for operation in ("PATCH /v1/users/me", "DELETE /v1/tokens"):
        assert report.accepted[operation] > 0, operation


def check(report: Report, service: Service) -> None:
    assert report.findings == 0, report.text
    assert report.requests >= 20
    assert report.requests >= 50  # sample
    assert [line for line in service.lines if line["level"] == "ERROR"] == []
