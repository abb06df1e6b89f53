"""`If-Match` and `If-None-Match` on books, authors, reviews and covers."""

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.settings import Settings
from chassis.files.settings import FilesSettings
from chassis.processes.settings import ProcessesSettings
from tests import preconditions
from tests.app.catalogue import Catalogue
from tests.app.images import PNG, image
from tests.preconditions import (
    Change,
    check_any_and_others,
    check_changes_at_once,
    check_creation_of_file,
    check_current_tag,
    check_etag_of_change,
    check_odd_lists,
)

REVIEW = {"rating": 4, "text": "Read in one night."}
NOWHERE = "/v1/books/987654321"
CHANGES: dict[str, Change] = {
    "book": ("/v1/books/{book_id}", "PATCH", {"json": {"title": "Second"}}),
    "deleted book": ("/v1/books/{book_id}", "DELETE", {}),
    "author": ("/v1/authors/{author_id}", "PATCH", {"json": {"name": "Second"}}),
    "deleted author": ("/v1/authors/{author_id}", "DELETE", {}),
    "review": ("/v1/books/{book_id}/reviews/{review_id}", "PATCH", {"json": {"rating": 1}}),
    "deleted review": ("/v1/books/{book_id}/reviews/{review_id}", "DELETE", {}),
    "cover": ("/v1/books/{book_id}/cover", "PUT", {"content": image(), "headers": PNG}),
    "new book": ("/v1/books", "POST", {"json": {"title": "New", "author_ids": [0]}}),
    "new author": ("/v1/authors", "POST", {"json": {"name": "New"}}),
    "new review": ("/v1/books/{other_id}/reviews", "POST", {"json": REVIEW}),
}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    settings.files = FilesSettings(url=f"file://{tmp_path}")
    settings.processes = ProcessesSettings(timeout=60, max_wait=60)
    settings.request.timeout = 60
    return settings


class Known(preconditions.Known):
    async def send(
        self, method: str, path: str, request: dict[str, Any], *conditions: tuple[str, str]
    ) -> httpx.Response:
        if "author_ids" in (body := request.get("json", {})):
            request = request | {"json": body | {"author_ids": [self.ids["author_id"]]}}
        return await super().send(method, path, request, *conditions)


@pytest.fixture
async def known(catalogue: Catalogue, request: pytest.FixtureRequest) -> Known:
    known = Known(catalogue)
    book, other = await catalogue.add_book(), await catalogue.add_book("Other")
    known.ids |= {"book_id": book["id"], "other_id": other["id"]}
    known.ids["author_id"] = await catalogue.add_author("Alone")
    review = await known.send("POST", "/v1/books/{book_id}/reviews", {"json": REVIEW})
    known.ids["review_id"] = review.json()["id"]
    if "cover" in request.node.name:
        path, method, made = CHANGES["cover"]
        assert (await known.send(method, path, made)).status_code == 200
    return known


@pytest.mark.parametrize(
    ("name", "lines"), [*((name, ["{etag}"]) for name in CHANGES), ("review", ['"a"', "{etag}"])]
)
async def test_tag_that_is_current_matches(known: Known, name: str, lines: list[str]):
    await check_current_tag(known, CHANGES[name], lines)


@pytest.mark.parametrize("name", CHANGES)
async def test_any_is_what_there_is_and_other_tags_are_not(known: Known, name: str):
    await check_any_and_others(known, CHANGES[name])


async def test_what_is_no_list_of_tags_changes_no_cover(known: Known):
    await check_odd_lists(known, CHANGES["cover"], "If-Match")


@pytest.mark.parametrize("name", ["book", "author", "review", "new book", "new author"])
async def test_change_gives_the_etag_that_get_shows(known: Known, name: str):
    await check_etag_of_change(known, CHANGES[name])


async def test_cover_is_only_created_where_that_is_wanted(known: Known):
    await check_creation_of_file(known, CHANGES["cover"], "/v1/books/{other_id}/cover")


@pytest.mark.parametrize("name", CHANGES)
async def test_of_changes_at_once_that_saw_the_same_a_single_one_wins(known: Known, name: str):
    await check_changes_at_once(known, CHANGES[name], NOWHERE)
