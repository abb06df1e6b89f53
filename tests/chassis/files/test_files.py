"""Files of a resource: who gets them, for how long, and what becomes of those that are replaced."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from app.settings import Settings
from chassis.files.orphans import sweep_orphans
from chassis.files.settings import FilesSettings
from chassis.files.signed_urls import SignedUrls
from chassis.files.storage import make_storage
from chassis.resources import Resources
from tests.bucket import make_bucket, running_s3
from tests.process import free_port
from tests.purchases import receipts
from tests.purchases.model import Purchase
from tests.shop import Shop

AT_ONCE = timedelta(0)
OWNERS = {receipts.FOLDER: receipts.used_keys}
PDF = {"Content-Type": "application/pdf"}


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_s3(tmp_path_factory.mktemp("s3") / "log") as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> FilesSettings:
    return FilesSettings(url=f"file://{tmp_path}")


@pytest.fixture
def bucket(s3: str) -> FilesSettings:
    name = f"test-{secrets.token_hex(4)}"
    make_bucket(s3, name)
    return FilesSettings(
        url=f"s3://{name}",
        endpoint=s3,
        public_endpoint=s3.replace("127.0.0.1", "localhost"),
        access_key_id="key",
        secret_access_key=SecretStr("a secret"),
    )


@pytest.fixture
def kind() -> str:
    """Where most of these tests have their files; `in_both` asks for the other as well."""
    return "folder"


in_both = pytest.mark.parametrize("kind", ["folder", "bucket"])


@pytest.fixture
def settings(settings: Settings, kind: str, request: pytest.FixtureRequest) -> Settings:
    settings.files = request.getfixturevalue(kind)
    settings.request.timeout = 60
    return settings


@pytest.fixture
async def purchase_id(shop: Shop) -> int:
    id: int = (await shop.add_purchase())["id"]
    return id


@pytest.fixture
def path(purchase_id: int) -> str:
    return f"/v1/purchases/{purchase_id}/receipt"


def pdf() -> bytes:
    """No two are the same."""
    return b"%PDF-1.7 " + secrets.token_bytes(2000)


async def put(shop: Shop, path: str, content: Any) -> httpx.Response:
    return await shop.client.put(path, content=content, headers=shop.editor | PDF)


async def url_of(client: httpx.AsyncClient, path: str) -> str:
    response = await client.get(path)
    assert response.status_code == 307, response.text
    return str(response.headers["Location"])


async def fetch(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """From the application under test, or from the server of that address."""
    if not urlsplit(url).netloc:
        return await client.get(url)
    async with httpx.AsyncClient() as outside:
        return await outside.get(url)


async def stored(resources: Resources) -> list[str]:
    storage = resources["storage"]
    assert storage is not None
    return [key async for batch in storage.batches(receipts.FOLDER) for key in batch]


def urls_of(settings: Settings) -> SignedUrls:
    return SignedUrls(settings.files.url_ttl, settings.tokens.keys)


async def sweep(resources: Resources, orphaned: timedelta = AT_ONCE) -> None:
    assert resources["storage"] is not None
    await sweep_orphans(resources["sessions"], resources["storage"], OWNERS, orphaned)


@in_both
async def test_file_is_what_was_sent(shop: Shop, path: str):
    content = pdf()
    response = await put(shop, path, content)
    got = await fetch(shop.client, await url_of(shop.client, path))

    assert (response.status_code, response.json()) == (200, {"bytes": len(content)})
    assert (got.status_code, got.content) == (200, content)
    assert got.headers["Content-Type"] == "application/pdf"
    assert got.headers["Cache-Control"].startswith("private, max-age=")


@in_both
async def test_new_file_takes_the_place_of_the_old_one(shop: Shop, path: str, resources: Resources):
    client = shop.client
    await put(shop, path, pdf())
    old = await url_of(client, path)
    before = (await fetch(client, old)).content
    await put(shop, path, pdf())

    assert (await fetch(client, await url_of(client, path))).content != before
    # Whoever was given the old address still gets what it was given for, until the sweep.
    assert (await fetch(client, old)).content == before
    await sweep(resources)  # it sees that for the first time
    await sweep(resources, timedelta(hours=1))
    assert (await fetch(client, old)).content == before
    assert len(await stored(resources)) == 2
    await sweep(resources)
    assert len(await stored(resources)) == 1
    assert (await fetch(client, await url_of(client, path))).status_code == 200
    assert (await fetch(client, old)).status_code == 404


@in_both
async def test_file_of_what_is_deleted_is_swept(shop: Shop, path: str, resources: Resources):
    await put(shop, path, pdf())
    await shop.client.delete(path.removesuffix("/receipt"), headers=shop.editor)

    assert (await shop.client.get(path)).status_code == 404
    await sweep(resources)
    await sweep(resources)
    assert await stored(resources) == []


async def test_sweep_takes_what_never_got_a_row_but_not_what_still_did(
    resources: Resources, purchase_id: int
):
    storage = resources["storage"]
    assert storage is not None
    folder = f"{receipts.FOLDER}/{purchase_id}"

    async def own(key: str | None) -> None:
        async with resources["sessions"].write.begin() as session:
            await session.execute(update(Purchase).values(receipt=key))

    for key in ("slow", "lost"):
        await storage.put(f"{folder}/{key}/receipt.pdf", b"not committed yet")
    await sweep(resources)
    await own(f"{folder}/slow")
    await sweep(resources)
    assert await stored(resources) == [f"{folder}/slow/receipt.pdf"]
    await own(None)
    await sweep(resources)  # that it was an orphan once does not count any more
    assert len(await stored(resources)) == 1
    await sweep(resources)
    assert await stored(resources) == []


async def test_sweep_deletes_what_was_half_written(resources: Resources, tmp_path: Path):
    half = tmp_path / "objects" / receipts.FOLDER / "7" / "receipt.pdf#1"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    await sweep(resources)

    assert not half.exists()


async def test_upload_that_is_refused_leaves_nothing(
    shop: Shop, path: str, resources: Resources, tmp_path: Path
):
    html = await shop.client.put(
        path, content=pdf(), headers=shop.editor | {"Content-Type": "text/html"}
    )
    untyped = await shop.client.put(path, content=pdf(), headers=shop.editor)
    anonymous = await shop.client.put(path, content=pdf(), headers=PDF)
    nowhere = await put(shop, "/v1/purchases/1000000/receipt", pdf())

    for response, status in ((html, 415), (untyped, 415), (anonymous, 401), (nowhere, 404)):
        assert response.status_code == status
        assert response.headers["Content-Type"] == "application/problem+json"
    assert html.headers["Accept"] == "application/pdf"
    assert await stored(resources) == []
    assert [*tmp_path.glob("uploads/*")] == []
    assert (await put(shop, path, pdf())).status_code == 200


async def test_body_that_is_too_large_is_refused_before_it_was_read(shop: Shop, path: str):
    """By the limit of the route, which is not that of other bodies."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield bytes(65_536)

    headers = shop.editor | PDF | {"Content-Length": str(1 << 30)}
    told = await shop.client.put(path, content=endless(), headers=headers)
    assert (told.status_code, sent) == (413, 0)
    found_out = await put(shop, path, endless())
    assert found_out.status_code == 413
    assert f"{receipts.MAX_RECEIPT} bytes" in found_out.json()["detail"]
    assert sent < 2 * receipts.MAX_RECEIPT
    assert (await put(shop, path, bytes(receipts.MAX_RECEIPT))).status_code == 200


async def test_without_a_store_it_says_what_to_set(shop: Shop, path: str, resources: Resources):
    resources["storage"] = None
    responses = [await shop.client.get(path), await put(shop, path, pdf())]

    assert [response.status_code for response in responses] == [503, 503]
    assert "FILES_URL" in responses[0].json()["detail"]


@pytest.mark.parametrize("kind", ["bucket"])
async def test_store_that_is_away_is_a_503_and_changes_nothing(
    shop: Shop, path: str, settings: Settings, resources: Resources
):
    await put(shop, path, pdf())
    before = (await fetch(shop.client, await url_of(shop.client, path))).content
    settings.files.endpoint = f"http://127.0.0.1:{free_port()}"
    kept, resources["storage"] = (
        resources["storage"],
        make_storage(settings.files, settings.tokens.keys),
    )
    response = await put(shop, path, pdf())
    resources["storage"] = kept

    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert (await fetch(shop.client, await url_of(shop.client, path))).content == before


@pytest.fixture
async def signed(shop: Shop, path: str) -> str:
    await put(shop, path, pdf())
    return await url_of(shop.client, path)


async def test_url_with_any_byte_changed_is_refused(client: httpx.AsyncClient, signed: str):
    head = len("/files/")
    responses = set()
    for place in range(head, len(signed)):
        other = "0" if signed[place] != "0" else "1"
        response = await client.get(signed[:place] + other + signed[place + 1 :])
        responses.add((response.status_code, response.headers["Content-Type"]))

    assert (await client.get(signed)).status_code == 200
    assert responses == {(403, "application/problem+json")}
    for wrong in (signed + "0", signed + "&size=1", signed[:-1], signed.partition("?")[0]):
        assert (await client.get(wrong)).status_code == 403


@pytest.mark.parametrize("end", ["%0a", "%0d", "%00"])
async def test_url_with_a_control_character_is_not_the_one_without(
    client: httpx.AsyncClient, signed: str, end: str
):
    response = await client.get(signed.replace("?", f"{end}?"))

    assert response.status_code == 404


async def test_url_is_for_one_file(shop: Shop, signed: str):
    other = f"/v1/purchases/{(await shop.add_purchase('Another'))['id']}/receipt"
    await put(shop, other, pdf())
    key = (await url_of(shop.client, other)).partition("?")[0]

    assert (await shop.client.get(f"{key}?{signed.partition('?')[2]}")).status_code == 403


async def test_url_expires(
    client: httpx.AsyncClient, signed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    expires = int(signed.partition("expires=")[2].partition("&")[0])
    ttl = settings.files.url_ttl
    assert ttl <= expires - time.time() <= 2 * ttl

    monkeypatch.setattr("chassis.files.signed_urls.time.time", lambda: expires - 1)
    last = await client.get(signed)
    assert (last.status_code, last.headers["Cache-Control"]) == (200, "private, max-age=1")
    monkeypatch.setattr("chassis.files.signed_urls.time.time", lambda: expires)
    late = await client.get(signed)
    assert late.status_code == 403
    assert "expired" in late.json()["detail"]


async def test_url_of_an_old_key_is_good_until_it_expires(settings: Settings):
    url = urls_of(settings).sign("receipts/7/a/receipt.pdf")
    query = dict(part.split("=") for part in url.partition("?")[2].split("&"))
    settings.tokens.old_keys = settings.tokens.key
    settings.tokens.key = SecretStr("a new key of tokens, made for this test")

    assert urls_of(settings).check("receipts/7/a/receipt.pdf", **query) > 0


async def test_file_is_had_in_parts_and_only_if_it_is_new(client: httpx.AsyncClient, signed: str):
    whole = await client.get(signed)
    part = await client.get(signed, headers={"Range": "bytes=4-9"})
    same = await client.get(signed, headers={"If-None-Match": whole.headers["ETag"]})
    head = await client.head(signed, headers={"Range": "bytes=4-9"})
    twice = await client.get(signed, headers=[("Range", "bytes=4-9"), ("Range", "bytes=0-1")])

    assert twice.content == whole.content
    assert "Content-Range" not in head.headers
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert part.headers["Content-Range"] == f"bytes 4-9/{len(whole.content)}"
    assert (same.status_code, same.content) == (304, b"")
    beyond = await client.get(signed, headers={"Range": "bytes=999999-"})
    assert (head.status_code, head.content) == (200, b"")
    assert (beyond.status_code, beyond.headers["Content-Type"]) == (416, "application/problem+json")
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole.content)}"
    for range_, expected in {
        "bytes=-5": whole.content[-5:],
        "bytes=10-": whole.content[10:],
        "bytes=0-999999": whole.content,
        "Bytes=4-9": whole.content[4:10],
        "bytes=5-2": whole.content,
        "bytes=999999-5": whole.content,
        "bytes=--1": whole.content,
        "bytes=+0-1": whole.content,
        "bytes=0-1_0": whole.content,
        "bytes = 0-1": whole.content,
        f"bytes={'9' * 5000}-": whole.content,
        "bytes=0-1,4-5": whole.content,
        "lines=1-2": whole.content,
    }.items():
        assert (await client.get(signed, headers={"Range": range_})).content == expected
    changed = {"Range": "bytes=4-9", "If-Range": '"another"'}
    assert (await client.get(signed, headers=changed)).content == whole.content
    assert head.headers["Content-Length"] == str(len(whole.content))


async def test_proxy_is_told_which_file_to_send(
    client: httpx.AsyncClient, signed: str, settings: Settings
):
    settings.files.accel = "/stored"
    response = await client.get(signed)
    forged = await client.get(signed + "0")

    key = signed.partition("?")[0].removeprefix("/files")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["X-Accel-Redirect"] == f"/stored{key}"
    assert "X-Accel-Redirect" not in forged.headers


@pytest.mark.parametrize("kind", ["bucket"])
async def test_clients_are_led_to_the_public_address_of_a_store(
    shop: Shop, path: str, settings: Settings
):
    await put(shop, path, pdf())
    url = await url_of(shop.client, path)

    assert url.startswith(f"{settings.files.public_endpoint}/test-")
    assert "X-Amz-Expires=300" in url
    here = urls_of(settings).sign("receipts/7/a/receipt.pdf")
    assert (await shop.client.get(here)).status_code == 404
