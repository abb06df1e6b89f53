from collections.abc import Iterator

import pytest

from tests.compose.stack import PRODUCTION, Stack, stack
from tests.compose.subject import PATH, new


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three containers of the service, as `make deploy` brings them up the first time."""
    folder = tmp_path_factory.mktemp("production")
    with stack(folder, "test-production", PRODUCTION) as made:
        made.variables |= {"API_REPLICAS": "3", "WEB_CONCURRENCY": "2"}
        made.variables |= {"MAIL_URL": "file:///tmp/mail"}  # in the job worker's container
        made.variables |= {"CORS_ORIGINS": "https://app.example,https://www.example"}
        made.done("make", "--silent", "secrets")
        made.compose("up", "--detach", "--wait")
        with made.editor() as client:
            for number in range(30):
                assert client.post(PATH, json=new(f"Number {number}")).status_code == 201
            # sample: begin
            [author] = client.get("/v1/authors?limit=1").json()["items"]
            book = {"title": "With a cover", "author_ids": [author["id"]]}
            assert client.post("/v1/books", json=book).status_code == 201
            # sample: end
        yield made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two containers of the service with a worker each."""
    folder = tmp_path_factory.mktemp("small")
    with stack(folder, "test-small", PRODUCTION) as made:
        made.variables |= {"API_REPLICAS": "2", "WEB_CONCURRENCY": "1"}
        made.done("make", "--silent", "secrets")
        made.compose("up", "--detach", "--wait")
        yield made
