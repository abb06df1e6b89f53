from collections.abc import Iterator  # sample
from typing import Any

import httpx2 as httpx
import pytest

from tests.app.catalogue import Catalogue  # sample
from tests.app.sellers import Sellers, running_sellers  # sample
from tests.logins import REGISTER


@pytest.fixture
async def user(client: httpx.AsyncClient) -> dict[str, Any]:
    response = await client.post("/v1/users", json=REGISTER)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


# sample: begin
@pytest.fixture
def catalogue(client: httpx.AsyncClient, token: str) -> Catalogue:
    return Catalogue(client, token)


@pytest.fixture(scope="session")
def started_sellers() -> Iterator[Sellers]:
    with running_sellers() as sellers:
        yield sellers


@pytest.fixture
def sellers(started_sellers: Sellers) -> Sellers:
    """Three that behave, until a test tells them not to."""
    started_sellers.behave()
    return started_sellers


# sample: end
