"""Covers: what is taken, what is refused, what is kept, and who may see it for how long."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from app.jobs import FILE_OWNERS
from app.sample.images import MAX_PROFILE, SIZES
from app.sample.settings import CoversSettings
from app.settings import Settings
from chassis.files.orphans import sweep_orphans
from chassis.files.settings import FilesSettings
from chassis.files.signed_urls import SignedUrls
from chassis.processes.settings import ProcessesSettings
from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.app.icc import cmyk_with_blue_ink, linear_grey, swapped_rgb
from tests.app.images import JPEG, PNG, WEBP, image, opened
from tests.bucket import make_bucket, running_s3
from tests.databases import sqlite_only

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
    client: httpx.AsyncClient, path: str, headers: dict[str, str], content: Any
) -> httpx.Response:
    return await client.put(path, content=content, headers=headers)


async def url_of(client: httpx.AsyncClient, path: str, size: str = "medium") -> str:
    response = await client.get(path, params={"size": size})
    assert response.status_code == 307, response.text
    return str(response.headers["Location"])


async def fetch(client: httpx.AsyncClient, url: str, **options: Any) -> httpx.Response:
    """From the application under test, or from the server of that address."""
    if not urlsplit(url).netloc:
        return await client.get(url, **options)
    async with httpx.AsyncClient() as outside:
        return await outside.get(url, **options)


async def stored(resources: Resources) -> list[str]:
    storage = resources["storage"]
    assert storage is not None
    return [key async for batch in storage.batches("covers") for key in batch]


def urls_of(settings: Settings) -> SignedUrls:
    return SignedUrls(settings.files.url_ttl, settings.tokens.keys)


async def sweep(resources: Resources, orphaned: timedelta = AT_ONCE) -> None:
    assert resources["storage"] is not None
    await sweep_orphans(resources["sessions"], resources["storage"], FILE_OWNERS, orphaned)


@in_both
async def test_cover_is_kept_in_three_sizes(
    client: httpx.AsyncClient, path: str, editor: dict[str, str], book_id: int
):
    response = await put(client, path, editor | PNG, image(1000, 2000))

    assert response.status_code == 200, response.text
    assert response.json()["book_id"] == book_id
    for made in response.json()["images"]:
        got = await fetch(client, await url_of(client, path, made["size"]))
        shown = opened(got.content)
        assert got.headers["Content-Type"] == "image/webp"
        assert got.headers["Cache-Control"].startswith("private, max-age=")
        assert (shown.format, shown.size) == ("WEBP", (made["width"], made["height"]))
        assert made["height"] == SIZES[made["size"]]
        assert made["bytes"] == len(got.content)


@pytest.mark.parametrize(("format", "kind_of"), [("PNG", PNG), ("JPEG", JPEG), ("WEBP", WEBP)])
async def test_all_usual_formats_are_taken(
    client: httpx.AsyncClient,
    path: str,
    editor: dict[str, str],
    format: str,
    kind_of: dict[str, str],
):
    response = await put(client, path, editor | kind_of, image(format=format))

    assert response.status_code == 200, response.text


async def test_picture_is_upright_and_tells_nothing_else(
    client: httpx.AsyncClient, path: str, editor: dict[str, str]
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
    client: httpx.AsyncClient, path: str, editor: dict[str, str], tmp_path: Path
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
    client: httpx.AsyncClient, path: str, editor: dict[str, str]
):
    for name, (content, expected) in COLOURS.items():
        response = await put(client, path, editor | PNG, content)
        assert response.status_code == 200, (name, response.text)
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
    client: httpx.AsyncClient,
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

    assert {name: response.status_code for name, (response, _) in refused.items()} == {
        name: status for name, (_, status) in refused.items()
    }
    for response, _ in refused.values():
        assert response.headers["Content-Type"] == "application/problem+json"
    assert refused["text"][0].headers["Accept"] == "image/jpeg, image/png, image/webp"
    assert await stored(resources) == []
    assert [*(tmp_path / "uploads").iterdir()] == []
    assert (await client.get(path)).json()["detail"].endswith("has no cover")
    assert (await put(client, path, editor | PNG, image())).status_code == 200


async def test_body_that_is_too_large_is_refused_before_it_was_read(
    client: httpx.AsyncClient, path: str, editor: dict[str, str], settings: Settings
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
    client: httpx.AsyncClient, path: str, editor: dict[str, str], tmp_path: Path
):
    file = tmp_path / "grey.png"
    Image.new("I;16", (40, 40), 0x8000).save(file)
    await put(client, path, editor | PNG, file.read_bytes())
    shown = opened((await client.get(await url_of(client, path, "large"))).content)

    assert shown.convert("L").getpixel((20, 20)) == pytest.approx(128, abs=3)


async def test_too_many_uploads_are_refused_before_they_are_read(
    client: httpx.AsyncClient, path: str, editor: dict[str, str], resources: Resources
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
    client: httpx.AsyncClient, path: str, editor: dict[str, str], resources: Resources
):
    resources["storage"] = None
    responses = [await client.get(path), await put(client, path, editor | PNG, image())]

    assert [response.status_code for response in responses] == [503, 503]
    assert "FILES_URL" in responses[0].json()["detail"]


async def test_new_cover_takes_the_place_of_the_old_one_whose_files_are_swept(
    client: httpx.AsyncClient, path: str, editor: dict[str, str], resources: Resources
):
    await put(client, path, editor | PNG, image())
    old = await url_of(client, path)
    await put(client, path, editor | PNG, image())
    before, new = await fetch(client, old), await fetch(client, await url_of(client, path))
    for _ in range(2):  # orphans are seen, then swept
        await sweep(resources)

    assert before.content != new.content
    assert len(await stored(resources)) == 3
    assert (await fetch(client, await url_of(client, path))).status_code == 200
    assert (await fetch(client, old)).status_code == 404


async def test_url_of_one_size_is_no_url_of_another(
    client: httpx.AsyncClient, path: str, editor: dict[str, str]
):
    await put(client, path, editor | PNG, image())
    signed = await url_of(client, path)

    assert (await client.get(signed)).status_code == 200
    assert (await client.get(signed.replace("medium", "large"))).status_code == 403
