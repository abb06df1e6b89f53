"""Covers: what is taken, what is refused, what is kept, and who may see it for how long."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import delete

from app.images import MAX_PROFILE, SIZES
from app.models import Cover
from app.resources import Resources
from app.services.covers import sweep_covers
from app.settings import CoversSettings, FilesSettings, ProcessesSettings, Settings
from app.signed_urls import SignedUrls
from app.storage import make_storage
from tests.bucket import make_bucket, running_s3
from tests.catalogue import Catalogue
from tests.databases import sqlite_only
from tests.icc import cmyk_with_blue_ink, linear_grey, swapped_rgb
from tests.images import JPEG, PNG, WEBP, image, opened
from tests.process import free_port

AT_ONCE = timedelta(0)


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
    # They get what the other tests leave of the CPUs.
    settings.processes = ProcessesSettings(timeout=60, max_wait=60)
    settings.request.timeout = 60
    return settings


@pytest.fixture
async def book_id(catalogue: Catalogue) -> int:
    book: dict[str, Any] = await catalogue.add_book()
    id: int = book["id"]
    return id


@pytest.fixture
def path(book_id: int) -> str:
    return f"/v1/books/{book_id}/cover"


@pytest.fixture
def editor(catalogue: Catalogue) -> dict[str, str]:
    return catalogue.editor


async def put(
    client: httpx2.AsyncClient, path: str, headers: dict[str, str], content: Any
) -> httpx2.Response:
    return await client.put(path, content=content, headers=headers)


async def url_of(client: httpx2.AsyncClient, path: str, size: str = "medium") -> str:
    answer = await client.get(path, params={"size": size})
    assert answer.status_code == 307, answer.text
    return str(answer.headers["Location"])


async def fetch(client: httpx2.AsyncClient, url: str, **options: Any) -> httpx2.Response:
    """From the application under test, or from the server of that address."""
    if not urlsplit(url).netloc:
        return await client.get(url, **options)
    async with httpx2.AsyncClient() as outside:
        return await outside.get(url, **options)


async def stored(resources: Resources) -> list[str]:
    storage = resources["storage"]
    assert storage is not None
    return [key async for batch in storage.batches("covers") for key in batch]


async def sweep(resources: Resources, orphaned: timedelta = AT_ONCE) -> None:
    assert resources["storage"] is not None
    await sweep_covers(resources["sessions"], resources["storage"], orphaned)


@in_both
async def test_cover_is_kept_in_three_sizes(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], book_id: int
):
    answer = await put(client, path, editor | PNG, image(1000, 2000))

    assert answer.status_code == 200, answer.text
    assert answer.json()["book_id"] == book_id
    for made in answer.json()["images"]:
        got = await fetch(client, await url_of(client, path, made["size"]))
        shown = opened(got.content)
        assert got.headers["Content-Type"] == "image/webp"
        assert got.headers["Cache-Control"].startswith("private, max-age=")
        assert (shown.format, shown.size) == ("WEBP", (made["width"], made["height"]))
        assert made["height"] == SIZES[made["size"]]
        assert made["bytes"] == len(got.content)


@in_both
async def test_new_cover_takes_the_place_of_the_old_one(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], resources: Resources
):
    await put(client, path, editor | PNG, image())
    old = await url_of(client, path)
    before = (await fetch(client, old)).content
    await put(client, path, editor | PNG, image())

    assert (await fetch(client, await url_of(client, path))).content != before
    # Whoever was given the old address still gets what it was given for, until the sweep.
    assert (await fetch(client, old)).content == before
    await sweep(resources)  # it sees that for the first time
    await sweep(resources, timedelta(hours=1))
    assert (await fetch(client, old)).content == before
    assert len(await stored(resources)) == 6
    await sweep(resources)
    assert len(await stored(resources)) == 3
    assert (await fetch(client, await url_of(client, path))).status_code == 200
    assert (await fetch(client, old)).status_code == 404


@in_both
async def test_cover_of_a_deleted_book_is_swept(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], resources: Resources
):
    await put(client, path, editor | PNG, image())
    await client.delete(path.removesuffix("/cover"), headers=editor)

    assert (await client.get(path)).status_code == 404
    await sweep(resources)
    await sweep(resources)
    assert await stored(resources) == []


async def test_sweep_takes_what_never_became_a_cover_but_not_what_still_did(
    client: httpx2.AsyncClient, resources: Resources, book_id: int
):
    storage = resources["storage"]
    assert storage is not None
    for key in ("slow", "lost"):
        await storage.put(f"covers/{book_id}/{key}/small.webp", b"not committed yet")
    await sweep(resources)
    async with resources["sessions"].write.begin() as session:
        session.add(Cover(book_id=book_id, key=f"covers/{book_id}/slow"))
    await sweep(resources)
    assert await stored(resources) == [f"covers/{book_id}/slow/small.webp"]
    async with resources["sessions"].write.begin() as session:
        await session.execute(delete(Cover))
    await sweep(resources)  # that it was an orphan once does not count any more
    assert len(await stored(resources)) == 1
    await sweep(resources)
    assert await stored(resources) == []


async def test_sweep_deletes_what_was_half_written(resources: Resources, tmp_path: Path):
    half = tmp_path / "objects" / "covers" / "7" / "small.webp#1"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    await sweep(resources)

    assert not half.exists()


@pytest.mark.parametrize(("format", "kind_of"), [("PNG", PNG), ("JPEG", JPEG), ("WEBP", WEBP)])
async def test_all_usual_formats_are_taken(
    client: httpx2.AsyncClient,
    path: str,
    editor: dict[str, str],
    format: str,
    kind_of: dict[str, str],
):
    answer = await put(client, path, editor | kind_of, image(format=format))

    assert answer.status_code == 200, answer.text


async def test_picture_is_upright_and_tells_nothing_else(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str]
):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned
    exif[0x010F] = "the camera's maker"
    content = image(300, 200, "JPEG", exif=exif, icc_profile=b"a profile", comment=b"a comment")
    await put(client, path, editor | JPEG, content)
    got = await client.get(await url_of(client, path))

    shown = opened(got.content)
    assert shown.size == (200, 300)
    assert not shown.getexif()
    assert "icc_profile" not in shown.info
    assert b"maker" not in got.content


async def test_transparency_is_kept_and_nothing_is_enlarged(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], tmp_path: Path
):
    file = tmp_path / "clear.png"
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(file)
    await put(client, path, editor | PNG, file.read_bytes())
    shown = opened((await client.get(await url_of(client, path, "large"))).content)

    assert shown.size == (30, 20)
    assert shown.convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


def plain(mode: str, colour: Any, format: str, profile: bytes | None, **options: Any) -> bytes:
    file = BytesIO()
    with_alpha = options.pop("alpha", None)
    picture = Image.new(mode, (40, 30), colour)
    if with_alpha is not None:
        picture.putalpha(with_alpha)
    if mode == "P":
        picture.putpalette([*RED, 0, 255, 0])
    options |= {"lossless": True} if format == "WEBP" else {"quality": 100}
    picture.save(file, format, icc_profile=profile, **options)
    return file.getvalue()


RED, BLUE, CYAN = (255, 0, 0), (0, 0, 255), (0, 255, 255)
SWAPPED, LINEAR, INKS = swapped_rgb(), linear_grey(), cmyk_with_blue_ink()
LARGE = SWAPPED + bytes(MAX_PROFILE)
COLOURS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "PNG": (plain("RGB", RED, "PNG", SWAPPED), BLUE),
    "JPEG": (plain("RGB", RED, "JPEG", SWAPPED), BLUE),
    "WebP": (plain("RGB", RED, "WEBP", SWAPPED), BLUE),
    "palette": (plain("P", 0, "PNG", SWAPPED), BLUE),
    "palette, clear": (plain("P", 0, "PNG", SWAPPED, transparency=bytes([128, 255])), (*BLUE, 128)),
    "alpha": (plain("RGB", RED, "PNG", SWAPPED, alpha=128), (*BLUE, 128)),
    "WebP, alpha": (plain("RGB", RED, "WEBP", SWAPPED, alpha=128), (*BLUE, 128)),
    "key": (plain("RGB", RED, "PNG", SWAPPED, transparency=RED), (*BLUE, 0)),
    "grey": (plain("L", 128, "PNG", LINEAR), (188, 188, 188)),
    "grey JPEG": (plain("L", 128, "JPEG", LINEAR), (188, 188, 188)),
    "grey, alpha": (plain("L", 128, "PNG", LINEAR, alpha=64), (188, 188, 188, 64)),
    "grey of 16 bits": (plain("I;16", 128 * 257, "PNG", LINEAR), (188, 188, 188)),
    "grey of 16 bits, plain": (plain("I;16", 128 * 257, "PNG", None), (128, 128, 128)),
    "grey, colours": (plain("L", 128, "PNG", SWAPPED), (128, 128, 128)),
    "black and white": (plain("1", 1, "PNG", LINEAR), (255, 255, 255)),
    "CMYK": (plain("CMYK", (255, 0, 0, 0), "JPEG", INKS), (89, 0, 255)),
    "CMYK, black": (plain("CMYK", (0, 0, 0, 255), "JPEG", INKS), (0, 0, 0)),
    "CMYK, plain": (plain("CMYK", (255, 0, 0, 0), "JPEG", None), CYAN),
    # Of no use: the image is taken as if it had none.
    "no profile": (plain("RGB", RED, "PNG", b"no profile"), RED),
    "broken": (plain("RGB", RED, "JPEG", SWAPPED[:200]), RED),
    "of greys": (plain("RGB", RED, "PNG", LINEAR), RED),
    "of inks": (plain("RGB", RED, "PNG", INKS), RED),
    "of screens": (plain("CMYK", (255, 0, 0, 0), "JPEG", SWAPPED), CYAN),
    "too large": (plain("RGB", RED, "WEBP", LARGE), RED),
}


@sqlite_only
async def test_colours_are_those_that_the_profile_means(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str]
):
    for name, (content, expected) in COLOURS.items():
        answer = await put(client, path, editor | PNG, content)
        assert answer.status_code == 200, (name, answer.text)
        for size in SIZES:
            got = await client.get(await url_of(client, path, size))
            shown = opened(got.content)
            pixel = shown.getpixel((20, 15))
            assert isinstance(pixel, tuple)
            assert len(pixel) == len(expected), (name, pixel)
            # As exact as WebP's compression.
            assert max(abs(a - b) for a, b in zip(pixel, expected, strict=True)) < 8, (name, pixel)
            assert "icc_profile" not in shown.info, name


def truncated() -> bytes:
    return image(400, 400)[:-60]


def bomb(tmp: Path) -> bytes:
    """A few kilobytes that would be a gigabyte."""
    Image.new("1", (20_000, 20_000)).save(tmp / "bomb.png")
    return (tmp / "bomb.png").read_bytes()


async def test_what_is_no_usable_image_is_refused_and_nothing_is_stored(
    client: httpx2.AsyncClient,
    path: str,
    editor: dict[str, str],
    resources: Resources,
    tmp_path: Path,
):
    refused = {
        "HTML": (await put(client, path, editor | PNG, b"<!doctype html><p>Hello"), 415),
        "GIF": (await put(client, path, editor | PNG, image(format="GIF")), 415),
        "nothing": (await put(client, path, editor | PNG, b""), 415),
        "truncated": (await put(client, path, editor | PNG, truncated()), 422),
        "bomb": (await put(client, path, editor | PNG, bomb(tmp_path)), 422),
        "text": (await put(client, path, editor | {"Content-Type": "text/html"}, image()), 415),
        "no type": (await put(client, path, editor, image()), 415),
        "anonymous": (await put(client, path, PNG, image()), 401),
        "no book": (await put(client, "/v1/books/1000000/cover", editor | PNG, image()), 404),
    }

    assert {name: answer.status_code for name, (answer, _) in refused.items()} == {
        name: status for name, (_, status) in refused.items()
    }
    for answer, _ in refused.values():
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert refused["text"][0].headers["Accept"] == "image/jpeg, image/png, image/webp"
    assert await stored(resources) == []
    assert [*(tmp_path / "uploads").glob("worker-*/[!l]*")] == []
    assert (await client.get(path)).json()["detail"].endswith("has no cover")
    assert (await put(client, path, editor | PNG, image())).status_code == 200


async def test_body_that_is_too_large_is_refused_before_it_was_read(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], settings: Settings
):
    settings.covers = CoversSettings(max_body=200_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield bytes(65_536)

    declared = editor | PNG | {"Content-Length": str(1 << 30)}
    told = await put(client, path, declared, endless())
    assert (told.status_code, sent) == (413, 0)
    found_out = await put(client, path, editor | PNG, endless())
    assert found_out.status_code == 413
    assert "200000 bytes" in found_out.json()["detail"]
    assert sent < 1_000_000


async def test_sixteen_bits_of_grey_are_eight(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], tmp_path: Path
):
    file = tmp_path / "grey.png"
    Image.new("I;16", (40, 40), 0x8000).save(file)
    await put(client, path, editor | PNG, file.read_bytes())
    shown = opened((await client.get(await url_of(client, path, "large"))).content)

    assert shown.convert("L").getpixel((20, 20)) == pytest.approx(128, abs=3)


async def test_too_many_uploads_are_refused_before_they_are_read(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], resources: Resources
):
    resources["processes"].settings.max_waiting = 1
    begun, go_on = asyncio.Event(), asyncio.Event()
    content = image()

    async def slow() -> AsyncIterator[bytes]:
        yield content[:10]
        begun.set()
        await go_on.wait()
        yield content[10:]

    first = asyncio.create_task(put(client, path, editor | PNG, slow()))
    await begun.wait()
    second = await put(client, path, editor | PNG, content)
    go_on.set()

    assert second.status_code == 503
    assert second.headers["Retry-After"] == "1"
    assert (await first).status_code == 200


async def test_without_a_store_covers_say_what_to_set(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], resources: Resources
):
    resources["storage"] = None
    answers = [await client.get(path), await put(client, path, editor | PNG, image())]

    assert [answer.status_code for answer in answers] == [503, 503]
    assert "FILES_URL" in answers[0].json()["detail"]


@pytest.mark.parametrize("kind", ["bucket"])
async def test_store_that_is_away_is_a_503_and_changes_nothing(
    client: httpx2.AsyncClient,
    path: str,
    editor: dict[str, str],
    settings: Settings,
    resources: Resources,
):
    await put(client, path, editor | PNG, image())
    before = (await fetch(client, await url_of(client, path))).content
    settings.files.endpoint = f"http://127.0.0.1:{free_port()}"
    kept, resources["storage"] = resources["storage"], make_storage(settings)
    answer = await put(client, path, editor | PNG, image())
    resources["storage"] = kept

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert (await fetch(client, await url_of(client, path))).content == before


@pytest.fixture
async def signed(client: httpx2.AsyncClient, path: str, editor: dict[str, str]) -> str:
    await put(client, path, editor | PNG, image())
    return await url_of(client, path)


async def test_url_with_any_byte_changed_is_refused(client: httpx2.AsyncClient, signed: str):
    head = len("/files/")
    answers = set()
    for place in range(head, len(signed)):
        other = "0" if signed[place] != "0" else "1"
        answer = await client.get(signed[:place] + other + signed[place + 1 :])
        answers.add((answer.status_code, answer.headers["Content-Type"]))

    assert (await client.get(signed)).status_code == 200
    assert answers == {(403, "application/problem+json")}
    for wrong in (signed + "0", signed + "&size=large", signed[:-1], signed.partition("?")[0]):
        assert (await client.get(wrong)).status_code == 403


@pytest.mark.parametrize("end", ["%0a", "%0d", "%00"])
async def test_url_with_a_control_character_is_not_the_one_without(
    client: httpx2.AsyncClient, signed: str, end: str
):
    response = await client.get(signed.replace("?", f"{end}?"))

    assert response.status_code == 404


async def test_url_is_for_one_file(
    client: httpx2.AsyncClient, signed: str, catalogue: Catalogue, editor: dict[str, str]
):
    other = f"/v1/books/{(await catalogue.add_book('Another'))['id']}/cover"
    await put(client, other, editor | PNG, image())
    key = (await url_of(client, other)).partition("?")[0]

    assert (await client.get(f"{key}?{signed.partition('?')[2]}")).status_code == 403
    assert (await client.get(signed.replace("medium", "large"))).status_code == 403


async def test_url_expires(
    client: httpx2.AsyncClient, signed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    expires = int(signed.partition("expires=")[2].partition("&")[0])
    ttl = settings.files.url_ttl
    assert ttl <= expires - time.time() <= 2 * ttl

    monkeypatch.setattr("app.signed_urls.time.time", lambda: expires - 1)
    last = await client.get(signed)
    assert (last.status_code, last.headers["Cache-Control"]) == (200, "private, max-age=1")
    monkeypatch.setattr("app.signed_urls.time.time", lambda: expires)
    late = await client.get(signed)
    assert late.status_code == 403
    assert "expired" in late.json()["detail"]


async def test_url_of_an_old_key_is_good_until_it_expires(settings: Settings):
    url = SignedUrls(settings).sign("covers/7/a/small.webp")
    query = dict(part.split("=") for part in url.partition("?")[2].split("&"))
    settings.tokens.old_keys = settings.tokens.key
    settings.tokens.key = SecretStr("a new key of tokens, made for this test")

    assert SignedUrls(settings).check("covers/7/a/small.webp", **query) > 0


async def test_file_is_had_in_parts_and_only_if_it_is_new(client: httpx2.AsyncClient, signed: str):
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
        "bytes=5-2": whole.content,
        "bytes=0-1,4-5": whole.content,
        "lines=1-2": whole.content,
    }.items():
        assert (await client.get(signed, headers={"Range": range_})).content == expected
    changed = {"Range": "bytes=4-9", "If-Range": '"another"'}
    assert (await client.get(signed, headers=changed)).content == whole.content
    assert head.headers["Content-Length"] == str(len(whole.content))


async def test_proxy_is_told_which_file_to_send(
    client: httpx2.AsyncClient, signed: str, settings: Settings
):
    settings.files.accel = "/stored"
    answer = await client.get(signed)
    forged = await client.get(signed + "0")

    key = signed.partition("?")[0].removeprefix("/files")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["X-Accel-Redirect"] == f"/stored{key}"
    assert "X-Accel-Redirect" not in forged.headers


@pytest.mark.parametrize("kind", ["bucket"])
async def test_clients_are_led_to_the_public_address_of_a_store(
    client: httpx2.AsyncClient, path: str, editor: dict[str, str], settings: Settings
):
    await put(client, path, editor | PNG, image())
    url = await url_of(client, path)

    assert url.startswith(f"{settings.files.public_endpoint}/test-")
    assert "X-Amz-Expires=300" in url
    here = SignedUrls(settings).sign("covers/7/a/small.webp")
    assert (await client.get(here)).status_code == 404
