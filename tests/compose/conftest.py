from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, stack

PRODUCTION = ["-f", "docker-compose.yml"]


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three containers of the service, as `make deploy` brings them up the first time."""
    folder = tmp_path_factory.mktemp("production")
    with stack(folder, "books-production", "10.89.202.0/24", PRODUCTION) as made:
        made.variables |= {"API_REPLICAS": "3", "WEB_CONCURRENCY": "2"}
        made.variables |= {"MAIL_URL": "file:///tmp/mail"}  # in the job worker's container
        made.done("make", "--silent", "secrets")
        made.compose("up", "--detach", "--wait")
        with made.editor() as client:
            author = client.post("/v1/authors", json={"name": "Mary Shelley"}).json()["id"]
            for number in range(30):
                book = {"title": f"Book {number}", "author_ids": [author]}
                assert client.post("/v1/books", json=book).status_code == 201
        yield made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two containers of the service with a worker each."""
    folder = tmp_path_factory.mktemp("small")
    with stack(folder, "books-small", "10.89.204.0/24", PRODUCTION) as made:
        made.variables |= {"API_REPLICAS": "2", "WEB_CONCURRENCY": "1"}
        made.done("make", "--silent", "secrets")
        made.compose("up", "--detach", "--wait")
        yield made
