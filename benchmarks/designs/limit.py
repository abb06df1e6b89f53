"""The least that a response can cost: raw ASGI, and redis-py's GET or two queries by asyncmy."""

import os
from typing import Any
from urllib.parse import parse_qsl

import asyncmy
import orjson
from asyncmy.cursors import DictCursor
from redis.asyncio import Redis
from sqlalchemy import make_url
from starlette.types import Receive, Scope, Send

from app.models.full_text import phrase_params
from chassis.text.search_words import phrases

COLUMNS = (
    "id, title, isbn13, published_year, language, ratings_count, average_rating, version,"
    " created_at, updated_at"
)
BOOK = f"SELECT {COLUMNS} FROM books WHERE id = %s"  # noqa: S608
PAGE = f"SELECT {COLUMNS} FROM books WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608
SEARCH = (
    f"SELECT {COLUMNS} FROM books WHERE MATCH (words) AGAINST (%s IN BOOLEAN MODE)"  # noqa: S608
    " ORDER BY id LIMIT %s"
)
AUTHORS = (
    "SELECT book_id, id, name FROM book_authors JOIN authors ON id = author_id"
    " WHERE book_id IN %s ORDER BY book_id, position"
)
NO_STORE = (b"cache-control", b"no-store")


class App:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(receive, send)

        body = await self._respond(scope)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, scope: Scope) -> bytes:
        path: str = scope["path"]
        if path == "/health":
            return b'{"status":"ok"}'
        if path == "/v1/books":
            query = dict(parse_qsl(scope["query_string"].decode()))
            limit = int(query.get("limit", 20))
            if words := phrases(query.get("q", "")):
                every = phrase_params(words)["mariadb_query"]
                return orjson.dumps({"items": await self._books(SEARCH, every, limit)})
            after = int(query.get("after", 0))
            return orjson.dumps({"items": await self._books(PAGE, after, limit)})
        book_id = int(path.rpartition("/")[2])
        if NO_STORE in scope["headers"]:
            return await self._book(book_id)
        if body := await self.redis.get(f"limit:{book_id}"):
            assert isinstance(body, bytes)
            return body
        body = await self._book(book_id)
        await self.redis.setex(f"limit:{book_id}", 3600, body)
        return body

    async def _book(self, book_id: int) -> bytes:
        return orjson.dumps((await self._books(BOOK, book_id))[0])

    async def _books(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        async with self.pool.acquire() as connection, connection.cursor(DictCursor) as cursor:
            await cursor.execute(query, parameters)
            books = {row["id"]: {**row, "authors": []} for row in await cursor.fetchall()}
            if not books:
                return []
            await cursor.execute(AUTHORS, (tuple(books),))
            for row in await cursor.fetchall():
                books[row["book_id"]]["authors"].append({"id": row["id"], "name": row["name"]})
        for book in books.values():
            book["average_rating"] = float(book["average_rating"])
        return list(books.values())

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        url = make_url(os.environ["DATABASE_URL"])
        self.redis = Redis.from_url(os.environ["REDIS_URL"])
        self.pool = await asyncmy.create_pool(
            unix_socket=url.query.get("unix_socket"),
            host=url.host or "localhost",
            port=url.port or 3306,
            user=url.username,
            password=url.password or "",
            db=url.database,
            charset="utf8mb4",
            autocommit=True,
            minsize=1,
            maxsize=40,
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.pool.close()
        await self.pool.wait_closed()
        await self.redis.aclose()
        await send({"type": "lifespan.shutdown.complete"})


app = App()
