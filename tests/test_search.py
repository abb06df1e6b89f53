import httpx2
import pytest

from app.models.words import words_of
from tests.catalogue import Catalogue


async def found(client: httpx2.AsyncClient, q: str) -> list[str]:
    answer = await client.get("/v1/books", params={"q": q, "limit": 100})
    assert answer.status_code == 200, answer.text
    return [book["title"] for book in answer.json()["items"]]


@pytest.mark.parametrize(
    ("title", "q"),
    [
        ("The Lord of the Rings", "rings lord"),
        ("The Lord of the Rings", "RINGS"),
        ("The Lord of the Rings", "the of"),  # stop words of MariaDB
        ("It", "it"),  # shorter than MariaDB's shortest word
        ("1984", "1984"),
        ("Cien años de soledad", "anos"),
        ("L'Étranger", "etranger"),
        ("Straße", "STRASSE"),
        ("Acme™ guide", "acmetm"),
        ("𠮷野家の歴史", "𠮷野家"),
        ("Война и мир", "война"),
        ("紅樓夢", "樓"),
        ("吾輩は猫である", "猫である"),
        ("الف ليلة وليلة", "ليلة"),
        ('C++ & -Wall: a "primer" (*)', '+primer* -wall "c'),  # operators of both engines
        ("x" * 200, "x" * 200),
    ],
)
async def test_word_of_a_title_finds_it(
    client: httpx2.AsyncClient, catalogue: Catalogue, title: str, q: str
):
    await catalogue.add_book(title)
    await catalogue.add_book("Something else")

    assert await found(client, q) == [title]


async def test_words_may_come_from_title_and_authors(
    client: httpx2.AsyncClient, catalogue: Catalogue
):
    author_id = await catalogue.add_author("Ursula K. Le Guin")
    await catalogue.add_book("The Dispossessed", author_ids=[author_id])
    await catalogue.add_book("The Lathe of Heaven", author_ids=[author_id])

    assert await found(client, "le guin heaven") == ["The Lathe of Heaven"]
    assert len(await found(client, "ursula")) == 2


async def test_part_of_a_word_finds_nothing(client: httpx2.AsyncClient, catalogue: Catalogue):
    await catalogue.add_book("Frankenstein")

    assert await found(client, "frank") == []


async def test_search_follows_changes(client: httpx2.AsyncClient, catalogue: Catalogue):
    book = await catalogue.add_book("Before")

    await catalogue.change(f"/v1/books/{book['id']}", title="After")
    assert (await found(client, "before"), await found(client, "after")) == ([], ["After"])

    await client.delete(f"/v1/books/{book['id']}", headers=catalogue.editor)
    assert await found(client, "after") == []


async def test_search_follows_the_renaming_of_an_author(
    client: httpx2.AsyncClient, catalogue: Catalogue
):
    author_id = await catalogue.add_author("Currer Bell")
    book = await catalogue.add_book("Jane Eyre", author_ids=[author_id])

    await catalogue.change(f"/v1/authors/{author_id}", name="Charlotte Brontë")

    assert await found(client, "currer") == []
    assert await found(client, "bronte eyre") == ["Jane Eyre"]
    assert (await client.get(f"/v1/books/{book['id']}")).json()["version"] == 2


def test_words_are_folded_and_padded():
    assert words_of("The É, o'Neil_x") == ["the__", "e__", "o__", "neil__", "x__"]
