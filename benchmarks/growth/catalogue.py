"""Catalogues of up to a million books, which stay in var/ for the next run."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import func, insert, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.models import Author, Book, BookAuthor
from app.models.full_text import search_words
from benchmarks.comparison import generated
from benchmarks.comparison.stage import VAR
from chassis.database.engines import create_engine
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import private_mariadb
from chassis.migrations import schema

DATA = VAR / "growth"
# All of it fits into memory, as it should in production.
OPTIONS = ("--innodb-buffer-pool-size=2G", "--innodb-log-file-size=512M")
BATCH = 10_000  # books of a transaction
RARE = "xylograph"  # in so many titles, however many books there are:
RARE_TITLES = 5
COMMON = ("the", "golden", "bridge")  # in all titles, and each of the others in a ninth of them
PROLIFIC = (50, 500, 5_000, 50_000)  # books of further authors, where that is a twentieth or less

AUTHORS: Any = Author.__table__
BOOKS: Any = Book.__table__
LINKS: Any = BookAuthor.__table__
SINCE = {"version": 1, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
SINCE["updated_at"] = SINCE["created_at"]

Advance = Callable[[int], None]  # by so many books


def prolific(books: int) -> dict[int, int]:
    """The numbers of books of these authors, by id."""
    return {
        generated.AUTHORS + number: count
        for number, count in enumerate(PROLIFIC, 1)
        if count <= books // 20
    }


def url_of(server: str, books: int) -> str:
    url = make_url(server).set(database=f"growth_{books}")
    return url.render_as_string(hide_password=False)


def fill(sizes: Sequence[int], advance: Advance) -> None:
    """A database for each size, where there is none yet."""
    quickly = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0")
    with private_mariadb(DATA, VAR, say=print, options=(*OPTIONS, *quickly)) as mariadb:
        for books in sizes:
            asyncio.run(_fill(mariadb.url, books, advance))


async def _fill(server: str, books: int, advance: Advance) -> None:
    url = url_of(server, books)
    name = make_url(url).database
    admin = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        there = name in await connection.scalars(text("SHOW DATABASES"))
        tables = f"information_schema.tables WHERE table_schema = '{name}'"
        filled = f"SELECT COUNT(*) FROM {tables} AND table_name = 'books'"  # noqa: S608
        if there and await connection.scalar(text(filled)):
            count = await connection.scalar(text(f"SELECT COUNT(*) FROM {name}.books"))  # noqa: S608
            if count == books:
                advance(books)
                await admin.dispose()
                return
        await connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        await connection.execute(text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
    await admin.dispose()
    engine = create_engine(DatabaseSettings(url=url), "maintenance")
    await schema.migrate(engine)
    async with engine.connect() as connection:
        await _insert(connection, books, advance)
    await engine.dispose()


async def _insert(connection: AsyncConnection, books: int, advance: Advance) -> None:
    """Its indexes follow, before the last batch: until then the catalogue is not whole."""
    await connection.execute(text("SET unique_checks = 0, foreign_key_checks = 0"))
    names = [generated.author(number) for number in range(generated.AUTHORS)]
    names += [f"Author of {count:,} Books" for count in prolific(books).values()]
    await connection.execute(
        insert(AUTHORS), [{"id": id, "name": name, **SINCE} for id, name in enumerate(names, 1)]
    )
    ids = {name: id for id, name in enumerate(names, 1)}
    indexes = [*BOOKS.indexes]
    await connection.run_sync(lambda each: [index.drop(each) for index in indexes])
    following = rows(books, names)
    last = books - min(BATCH, books // 2)
    for start in range(0, last, BATCH):
        await _insert_batch(connection, [*islice(following, min(BATCH, last - start))], ids)
        advance(min(BATCH, last - start))
    await connection.run_sync(lambda each: [index.create(each) for index in indexes])
    await _insert_batch(connection, [*following], ids)
    advance(books - last)
    await connection.execute(text("ANALYZE TABLE books, book_authors, authors"))
    assert await connection.scalar(select(func.count()).select_from(BOOKS)) == books


async def _insert_batch(
    connection: AsyncConnection, batch: Sequence[dict[str, Any]], ids: dict[str, int]
) -> None:
    links = [
        {"book_id": book["id"], "author_id": ids[name], "position": position}
        for book in batch
        for position, name in enumerate(book.pop("authors"))
    ]
    await connection.execute(insert(BOOKS), [*batch])
    await connection.execute(insert(LINKS), links)
    await connection.commit()


def rows(books: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Columns of books, and the names of `authors`."""
    further = [(names[id - 1], books // count) for id, count in prolific(books).items()]
    for number, _, authors, year, title, language, average, ratings in generated.rows(books):
        written_by = [*authors.split(",")]
        # Evenly, as pages are compared.
        written_by += [name for rest, (name, every) in enumerate(further) if number % every == rest]
        if number % (books // RARE_TITLES) == 0:
            title += f" {RARE.title()}"
        yield {
            "id": number,
            "title": title,
            "isbn13": None,
            "published_year": int(float(year)),
            "language": language or None,
            "ratings_count": min(ratings, 2**31 - 1),
            "ratings_sum": int(Decimal(average) * ratings),
            "source_id": number,
            "authors": written_by,
            **search_words(title, written_by),
            **SINCE,
        }
