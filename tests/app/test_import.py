import asyncio
import csv
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select

from app.models import Book
from app.sample.catalogue import BATCH, Imported, describe, import_catalogue
from app.sample.goodbooks import BadRow, GoodRow, Note, WrongShape, read_goodbooks
from app.settings import Settings
from chassis.cache.model import CacheEpoch
from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.app.goodbooks import COLUMNS, write_goodbooks
from tests.command import finish, run, start
from tests.conftest import Servers
from tests.databases import sqlite_only
from tests.process import ROOT

SAMPLE = ROOT / "data" / "classics.csv"
HEADER = ",".join(COLUMNS)

ImportFile = Callable[[Path], Awaitable[Imported]]
ImportRows = Callable[..., Awaitable[Imported]]


@pytest.fixture
def import_file(settings: Settings, resources: Resources) -> ImportFile:
    return lambda path: import_catalogue(settings.database, path, lambda done, total: None)


@pytest.fixture
def import_rows(import_file: ImportFile, tmp_path: Path) -> ImportRows:
    """Imports a file with these rows below its header."""
    return lambda *rows: import_file(write_goodbooks(tmp_path / "books.csv", *rows))


@pytest.fixture
def environment(database_url: str, servers: Servers) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": servers.redis_url}


def names(book: dict[str, Any]) -> list[str]:
    return [author["name"] for author in book["authors"]]


async def test_sample_is_imported_as_the_file_has_it(import_file: ImportFile, catalogue: Catalogue):
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    imported = await import_file(SAMPLE)

    books = await catalogue.walk("/v1/books", limit=100)
    assert imported == Imported(added=200, skipped=0, refused=[])
    assert len(books) == len(rows) == 200
    for book, row in zip(books, rows, strict=True):
        year, language = row["original_publication_year"], row["language_code"]
        assert book["title"] == row["title"]
        assert names(book) == row["authors"].split(", ")
        assert book["published_year"] == (float(year) if year else None)
        assert book["language"] == (language or None)
        assert book["average_rating"] == float(row["average_rating"])
        assert book["ratings_count"] == int(row["ratings_count"])
        assert (book["isbn13"] is None) == (row["isbn"] == "")
        assert book["version"] == 1


async def test_imported_books_are_found_by_search(
    import_file: ImportFile, client: httpx.AsyncClient
):
    await import_file(SAMPLE)

    by_author = await client.get("/v1/books", params={"q": "bronte"})
    by_both = await client.get("/v1/books", params={"q": "iliad homer"})

    assert [book["title"] for book in by_author.json()["items"]] == [
        "Jane Eyre",
        "Wuthering Heights",
        "The Tenant of Wildfell Hall",
    ]
    assert [book["title"] for book in by_both.json()["items"]] == ["The Iliad"]


async def test_import_begins_all_caches_anew_once(import_rows: ImportRows, resources: Resources):
    async def epoch() -> int:
        async with resources["sessions"].current() as session:
            return (await session.scalars(select(CacheEpoch.number))).one()

    before = await epoch()
    await import_rows(*({} for _ in range(2 * BATCH + 1)))
    after = await epoch()
    await import_rows({})

    assert (after, await epoch()) == (before + 1, before + 1)


async def test_importing_again_changes_nothing(import_file: ImportFile, catalogue: Catalogue):
    await import_file(SAMPLE)
    first = (await catalogue.walk("/v1/books", limit=1))[0]
    await catalogue.change(f"/v1/books/{first['id']}", title="Changed since", isbn13=None)
    books = await catalogue.walk("/v1/books", limit=100)
    authors = await catalogue.walk("/v1/authors", limit=100)

    imported = await import_file(SAMPLE)

    assert imported == Imported(added=0, skipped=200, refused=[])
    assert books[0]["title"] == "Changed since"
    assert await catalogue.walk("/v1/books", limit=100) == books
    assert await catalogue.walk("/v1/authors", limit=100) == authors


@pytest.mark.drill
async def test_killed_import_goes_on_when_it_is_started_again(
    environment: dict[str, str], resources: Resources, catalogue: Catalogue, tmp_path: Path
):
    authors = [f"Author {n % 7}, Author {n + 7}" for n in range(12 * BATCH)]
    file = write_goodbooks(tmp_path / "books.csv", *({"authors": row} for row in authors))

    async def stored() -> int:
        async with resources["sessions"].read() as session:
            return await session.scalar(select(func.count()).select_from(Book)) or 0

    killed = start(tmp_path, "import-books", file, **environment)
    while killed.poll() is None and not await stored():
        await asyncio.sleep(0.002)
    killed.kill()
    code, _, _ = finish(killed)
    before = await stored()
    again, output, errors = run(tmp_path, "import-books", file, **environment)

    assert code == -signal.SIGKILL
    assert before in range(BATCH, 12 * BATCH, BATCH)
    assert (again, errors) == (0, "")
    assert f"{12 * BATCH - before} books added, {before} known already, 0 refused" in output
    books = await catalogue.walk("/v1/books", limit=100)
    assert [book["title"] for book in books] == [f"Book {n + 1}" for n in range(12 * BATCH)]
    assert [", ".join(names(book)) for book in books] == authors


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,,A,1818.0,T,eng,4.12", "has 7 cells instead of 8"),
        ("7,,A,1818.0,T,eng,4.12,9,", "has 9 cells instead of 8"),
        (",,A,1818.0,T,eng,4.12,9", "goodreads_book_id"),
        (f"{2**63},,A,1818.0,T,eng,4.12,9", "goodreads_book_id"),
        ("7,,,1818.0,T,eng,4.12,9", "authors"),
        ('7,,"A,,B",1818.0,T,eng,4.12,9', "authors"),
        (f"7,,{'A' * 301},1818.0,T,eng,4.12,9", "authors"),
        ("7,,A,soon,T,eng,4.12,9", "original_publication_year 'soon'"),
        ("7,,A,1818.5,T,eng,4.12,9", "original_publication_year"),
        ("7,,A,nan,T,eng,4.12,9", "original_publication_year"),
        ("7,,A,10000.0,T,eng,4.12,9", "original_publication_year"),
        ("7,,A,1818.0,,eng,4.12,9", "title"),
        ('7,,A,1818.0," \n ",eng,4.12,9', "title"),
        (f"7,,A,1818.0,{'T' * 501},eng,4.12,9", "title"),
        ("7,,A,1818.0,T,mostly English,4.12,9", "language_code 'mostly English'"),
        ("7,,A,1818.0,T,eng,7,9", "average_rating '7'"),
        ("7,,A,1818.0,T,eng,-0.1,9", "average_rating"),
        ("7,,A,1818.0,T,eng,nan,9", "average_rating"),
        ("7,,A,1818.0,T,eng,,9", "average_rating"),
        ("7,,A,1818.0,T,eng,4.12,-1", "ratings_count '-1'"),
        (f"7,,A,1818.0,T,eng,4.12,{2**31}", "ratings_count"),
        ("7,,A,soon,T,eng,7,9", "; average_rating '7'"),
        ('7,,A,1818.0,"T,eng,4.12,9', "',' expected after '\"'"),
        ('7,,A,1818.0,"T"x,eng,4.12,9', "',' expected after '\"'"),
    ],
)
def test_bad_row_has_its_line_and_a_reason_and_stops_no_other(
    tmp_path: Path, row: str, reason: str
):
    """The record before it takes two lines, and one after it has a quote."""
    file = tmp_path / "books.csv"
    two_lines = '1,,A,1818.0,"One\n",eng,4.12,9'
    quoted = '2,,"A, B",1818.0,"Two, ""too""",eng,4.12,9'
    rest = "3,,A,1818.0,Three,eng,4.12,9"
    file.write_text("\n".join([HEADER, two_lines, row, quoted, rest]), "utf-8")

    first, bad, *others = read_goodbooks(file)

    assert isinstance(first, GoodRow)
    assert isinstance(bad, BadRow)
    assert (first.line, bad.line) == (2, 4)
    assert reason in bad.reason
    assert "\n" not in bad.reason
    after = 5 + row.count("\n")
    assert [(other.line, isinstance(other, GoodRow)) for other in others] == [
        (after, True),
        (after + 1, True),
    ]


def test_quote_that_is_never_closed_takes_no_row_along(tmp_path: Path):
    """Not in a short file, and not in one that is longer than the longest cell."""
    file = tmp_path / "books.csv"
    count = 5000
    rows = [f"{n},,A,1818.0,Title {n},eng,4.12,9" for n in range(count)]
    rows[7] = '7,,A,1818.0,"Title 7,eng,4.12,9'
    rows[-2] = f'{count - 2},,A,1818.0,"Title,eng,4.12,9'
    file.write_text("\n".join([HEADER, *rows]), "utf-8")

    read = read_goodbooks(file)

    assert [row.line for row in read] == list(range(2, count + 2))
    bad = [row for row in read if isinstance(row, BadRow)]
    assert [row.line for row in bad] == [9, count]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_ends_byte_order_mark_and_blank_lines_make_no_difference(
    tmp_path: Path, line_end: str, encoding: str
):
    file = tmp_path / "books.csv"
    lines = [HEADER, "1,,Zoë,,One,,4.12,9", "", "2,,Zoë,,Two,,4.12", "3,,Zoë,,Three,,4.12,9", ""]
    file.write_bytes(line_end.join(lines).encode(encoding))

    read = read_goodbooks(file)

    assert [(row.line, type(row)) for row in read] == [(2, GoodRow), (4, BadRow), (5, GoodRow)]


@sqlite_only
async def test_refused_rows_are_printed_with_file_and_line(
    environment: dict[str, str], catalogue: Catalogue, tmp_path: Path
):
    rows = [{"title": "One\n"}, {"original_publication_year": "soon"}, {}, {"title": ""}]
    file = write_goodbooks(tmp_path / "books.csv", *rows)

    code, output, errors = run(tmp_path, "import-books", file.name, **environment)

    assert code == 1
    assert "2 books added, 0 known already, 2 refused" in output
    reports = errors.splitlines()
    assert len(reports) == 2
    assert reports[0].startswith("books.csv:4: original_publication_year 'soon': ")
    assert reports[1].startswith("books.csv:6: title '': ")
    books = await catalogue.walk("/v1/books")
    assert [book["title"] for book in books] == ["One", "Book 3"]


WRONG_SHAPES = {
    "empty": b"",
    "blank": b"\n\n",
    "no header": b"7,,A,1818.0,T,eng,4.12,9\n",
    "missing column": f"{HEADER}\n7,,A,1818.0,T,eng,4.12,9\n".replace("isbn,", "").encode(),
    "no CSV": f'"{HEADER}\n7,,A,1818.0,T,eng,4.12,9\n'.encode(),
    "Latin-1": f"{HEADER}\n7,,Zoë,1818.0,T,eng,4.12,9\n".encode("latin-1"),
    "late Latin-1": f"{HEADER}\n".encode() + b"7,,A,1818.0,T,eng,4.12,9\n" * 5000 + b"\xe9",
    "UTF-16": HEADER.encode("utf-16"),
    "UTF-16 without its mark": HEADER.encode("utf-16-le"),
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
}


@pytest.mark.parametrize("content", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
async def test_file_of_the_wrong_shape_is_refused_whole(
    import_file: ImportFile, catalogue: Catalogue, tmp_path: Path, content: bytes
):
    file = tmp_path / "books.csv"
    file.write_bytes(content)

    with pytest.raises(WrongShape) as refusal:
        await import_file(file)

    assert str(refusal.value).startswith(f"{file} is not ")
    assert "\n" not in str(refusal.value)
    assert await catalogue.walk("/v1/books") == []
    assert await catalogue.walk("/v1/authors") == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("UTF-16", "but UTF-16: save it as UTF-8"),
        ("UTF-16 without its mark", "but UTF-16: save it as UTF-8"),
        ("Latin-1", "(byte 0xEB in line 2), but maybe Latin-1 or Windows-1252: save it as UTF-8"),
    ],
)
def test_encoding_is_named(tmp_path: Path, name: str, hint: str):
    file = tmp_path / "books.csv"
    file.write_bytes(WRONG_SHAPES[name])

    with pytest.raises(WrongShape) as refusal:
        read_goodbooks(file)

    assert hint in str(refusal.value)


@sqlite_only
@pytest.mark.parametrize("name", ["picture.png", "missing.csv", "folder"])
def test_file_that_cannot_be_imported_is_one_clear_line(
    environment: dict[str, str], tmp_path: Path, name: str
):
    (tmp_path / "picture.png").write_bytes(WRONG_SHAPES["PNG"])
    (tmp_path / "folder").mkdir()

    code, output, errors = run(tmp_path, "import-books", name, **environment)

    assert (code, output.strip()) == (1, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("Nothing was imported: ")
    assert name in errors


async def test_titles_are_in_any_script_and_years_may_be_before_christ(
    import_rows: ImportRows, catalogue: Catalogue
):
    titles = ["紅樓夢", "ألف ليلة وليلة", "Война и мир", "महाभारत", "Ὀδύσσεια", "Faust 📚", "C:\\"]
    rows = [{"title": title, "original_publication_year": "-750.0"} for title in titles]

    await import_rows(*rows, {"title": " trimmed\t", "original_publication_year": ""})

    books = await catalogue.walk("/v1/books")
    assert [book["title"] for book in books] == [*titles, "trimmed"]
    assert [book["published_year"] for book in books] == [-750] * len(titles) + [None]


async def test_authors_are_in_order_and_each_is_there_once(
    import_rows: ImportRows, catalogue: Catalogue
):
    await import_rows(
        {"authors": "Terry Pratchett, Neil Gaiman"},
        {"authors": "Neil Gaiman,Terry Pratchett,  Neil Gaiman "},
    )

    books = await catalogue.walk("/v1/books")
    assert [names(book) for book in books] == [
        ["Terry Pratchett", "Neil Gaiman"],
        ["Neil Gaiman", "Terry Pratchett"],
    ]
    assert len(await catalogue.walk("/v1/authors")) == 2


async def test_authors_are_the_same_by_the_normal_form_of_their_names(
    import_rows: ImportRows, catalogue: Catalogue
):
    composed, decomposed, small = "Zo\u00eb K.", "Zoe\u0308  K.", "zo\u00eb K."

    await import_rows(
        {"authors": f"{composed}, {decomposed}, {small}"},
        {"authors": f"\u00a0{small} "},
        {"authors": composed},
        {"authors": decomposed.replace(" ", "\u3000")},
    )

    authors = await catalogue.walk("/v1/authors")
    books = await catalogue.walk("/v1/books")
    assert sorted(author["name"] for author in authors) == [composed, small]
    assert [names(book) for book in books] == [[composed, small], [small], [composed], [composed]]


async def test_spellings_that_become_one_author_are_noted_once_with_their_line(
    import_rows: ImportRows, catalogue: Catalogue
):
    """Of the file, in whatever batch, and of an author who is there already; not what is trimmed,
    nor case, which makes another author.
    """
    await catalogue.add_author("Mary Shelley")
    rows: list[dict[str, Any]] = [{"authors": f"Author {n}"} for n in range(BATCH + 3)]
    rows[0] = {"authors": "William  Gibson, Zo\u00eb"}
    rows[1] = {"authors": " William  Gibson ,william gibson, Mary\u3000Shelley"}
    rows[2] = {"authors": "Zoe\u0308,William Gibson"}
    rows[3] = {"authors": "Percy  Shelley"}  # without another
    rows[-2] = {"authors": "Mary Shelley, William Gibson, William   Gibson, Zo\u00eb"}
    rows[-1] = {"authors": "Mary  Bad", "title": ""}

    imported = await import_rows(*rows)
    again = await import_rows(*rows)

    assert [(note.line, note.text) for note in imported.notes] == [
        (
            3,
            "author 'Mary\\u3000Shelley' differs only in form from 'Mary Shelley'; "
            "both are 'Mary Shelley'",
        ),
        (
            4,
            "author 'William Gibson' differs only in form from 'William  Gibson'; "
            "both are 'William Gibson'",
        ),
        (4, "author 'Zoe\\u0308' differs only in form from 'Zo\u00eb'; both are 'Zo\u00eb'"),
        (
            BATCH + 3,
            "author 'William   Gibson' differs only in form from 'William  Gibson'; "
            "both are 'William Gibson'",
        ),
    ]
    assert again.notes == []


@pytest.mark.parametrize("column", ["title", "authors"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\0b", "holds the control character U+0000 at position 2"),
        ("a\u202eb", "holds the direction override U+202E at position 2"),
        ("a\nb", "holds the line break U+000A at position 2"),
        ("a\tb", "holds the control character U+0009 at position 2"),
        ("\u200d \u00ad", "String should have at least 1 character"),
        ("x" * 501, "String should have at most "),
    ],
)
def test_importer_refuses_text_that_the_api_refuses(
    tmp_path: Path, column: str, text: str, reason: str
):
    [row] = read_goodbooks(write_goodbooks(tmp_path / "books.csv", {column: text}))

    assert isinstance(row, BadRow)
    assert row.reason.startswith(f"{column} ")
    assert reason in row.reason
    assert row.reason.isprintable()
    assert len(row.reason) < 200


async def test_importer_keeps_text_that_the_api_keeps(
    import_rows: ImportRows, catalogue: Catalogue
):
    persian = "\u0627\u0633\u0645\u0627\u0639\u06cc\u0644\u200c\u0632\u0627\u062f\u0647"
    family = "fine \U0001f469\u200d\U0001f467"

    await import_rows({"title": family, "authors": persian})

    [book] = await catalogue.walk("/v1/books")
    assert (book["title"], names(book)) == (family, [persian])


async def test_averages_are_as_in_the_file_or_there_is_a_note(
    import_rows: ImportRows, catalogue: Catalogue
):
    given = [("3.33", 2), ("3.5", 2), ("4.12", 0), ("0", 0), ("4.34", 4780653), ("3.333", 3)]
    given += [("1.03", 40), ("2.13", 8), ("4.99", 77), ("5", 1)]

    imported = await import_rows(
        *({"average_rating": average, "ratings_count": count} for average, count in given)
    )

    kept = [book["average_rating"] for book in await catalogue.walk("/v1/books")]
    noted = {note.line: note.text for note in imported.notes}
    assert noted[2] == "average 3.33 of 2 ratings is not possible; 3.50 is kept"
    assert noted[4] == "average 4.12 of 0 ratings is not possible; 0.00 is kept"
    assert noted[7] == "average 3.333 of 3 ratings is not possible; 3.33 is kept"
    for line, ((average, _), figure) in enumerate(zip(given, kept, strict=True), start=2):
        assert (line in noted) == (float(average) != figure), line
        assert line not in noted or f"{figure:.2f} is kept" in noted[line]


async def test_isbn_comes_from_either_column_or_there_is_a_note(
    import_file: ImportFile, catalogue: Catalogue, tmp_path: Path
):
    dune, lost, other = "9780441172719", "9.78044117272e+12", "978-0-14-143951-8"
    cells = [
        ("441172717", lost, dune, None),
        ("", other, "9780141439518", None),
        ("", "9.780141439846E+12", "9780141439846", None),
        ("140390699", "9780140390698.0", "9780140390698", None),  # the first is wrong
        ("", "", None, None),
        ("", lost, None, "isbn13 '9.78044117272e+12' has lost its last digits"),
        ("141439514", lost, None, "isbn '141439514' is not an ISBN: its check digit is wrong"),
        ("none", "", None, "isbn 'none' is not an ISBN: it has 13 digits"),
    ]
    file = tmp_path / "books.csv"
    rows = [f"{n},{a},{b},A,,T{n},,4,9" for n, (a, b, _, _) in enumerate(cells)]
    file.write_text("\n".join([HEADER.replace("isbn,", "isbn,isbn13,"), *rows]), "utf-8")

    imported = await import_file(file)

    assert (imported.added, imported.refused) == (len(cells), [])
    books = await catalogue.walk("/v1/books")
    assert [book["isbn13"] for book in books] == [isbn13 for _, _, isbn13, _ in cells]
    texts = {line: text for line, (_, _, _, text) in enumerate(cells, start=2) if text}
    noted = {note.line: note.text for note in imported.notes if note.line != 5}
    assert noted.keys() == texts.keys()
    for line, text in noted.items():
        assert text.startswith(texts[line])
        assert text.endswith("; it is left out")


def test_many_notes_of_a_kind_are_one_line():
    alike = [Note(line, f"isbn '{line}' is wrong", "isbn") for line in range(2, 102)]
    few = [Note(line, f"average {line}", "average") for line in (3, 5)]

    assert list(describe([*alike, *few])) == [
        "3: average 3",
        "5: average 5",
        f"2: isbn '2' is wrong; 99 more such rows: {', '.join(map(str, range(3, 102)))}",
    ]


@sqlite_only
async def test_notes_are_printed_with_file_and_line_and_are_no_failure(
    environment: dict[str, str], catalogue: Catalogue, tmp_path: Path
):
    rows: list[dict[str, Any]] = [{"isbn": "141439514"}, {}, {}]
    rows[1] = {"average_rating": "3.33", "ratings_count": 2}
    file = write_goodbooks(tmp_path / "books.csv", *rows)

    code, output, errors = run(tmp_path, "import-books", file.name, **environment)
    again = run(tmp_path, "import-books", file.name, **environment)

    assert (code, "3 books added, 0 known already, 0 refused" in output) == (0, True)
    assert errors.splitlines() == [
        "books.csv:3: average 3.33 of 2 ratings is not possible; 3.50 is kept",
        "books.csv:2: isbn '141439514' is not an ISBN: its check digit is wrong; it is left out",
    ]
    assert (again[0], again[2]) == (0, "")
    assert len(await catalogue.walk("/v1/books")) == 3


async def test_isbn_of_another_book_is_refused_with_its_line(
    import_rows: ImportRows, catalogue: Catalogue
):
    """Of one in the same batch, in an earlier batch, and one that an editor has added."""
    await catalogue.add_book("An editor's", isbn13="9780141439846")
    rows: list[dict[str, Any]] = [{} for _ in range(BATCH + 10)]
    rows[1] = rows[5] = rows[-1] = {"isbn": "141439513"}
    rows[7] = {"isbn": "14143984X"}
    rows[8] = {"title": ""}

    imported = await import_rows(*rows)

    assert imported.added == BATCH + 6
    assert imported.refused == [
        BadRow(7, "another book has the ISBN 9780141439518"),
        BadRow(9, "another book has the ISBN 9780141439846"),
        BadRow(10, "title '': String should have at least 1 character"),
        BadRow(BATCH + 11, "another book has the ISBN 9780141439518"),
    ]
    books = await catalogue.walk("/v1/books", limit=100)
    assert [book["title"] for book in books if book["isbn13"]] == ["An editor's", "Book 2"]


async def test_book_that_the_file_repeats_is_taken_once(
    import_rows: ImportRows, catalogue: Catalogue
):
    first: dict[str, Any] = {"goodreads_book_id": 7000, "isbn": "141439513"}
    others: list[dict[str, Any]] = [{} for _ in range(BATCH)]

    imported = await import_rows(first, first, *others, {**first, "title": "Later"})

    assert imported == Imported(added=BATCH + 1, skipped=2, refused=[])
    books = await catalogue.walk("/v1/books", limit=100)
    assert [book["title"] for book in books] == ["Book 1"] + [
        f"Book {n}" for n in range(3, BATCH + 3)
    ]
