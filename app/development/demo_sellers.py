"""`python -m app demo-sellers`: booksellers that can be made slow or broken.

`GET /SELLER/BOOK` returns an offer, `PUT /SELLER` sets how that seller behaves.
"""

import asyncio
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from zlib import crc32

import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

from app.schemas.offer import SellerOffer

HOST = "127.0.0.1"
NAMES = ("alpha", "beta", "gamma")


class Behaviour(BaseModel):
    latency: float = Field(0.05, ge=0, description="Time until it responds, s")
    errors: float = Field(0, ge=0, le=1, description="Share of responses that are 503")
    garbage: bool = Field(False, description="Respond with invalid JSON")
    size: int = Field(0, ge=0, description="Bytes that pad the response")
    retry_after: int | None = Field(None, description="`Retry-After` of its 503, s")


class Count(BaseModel):
    """Requests of a seller since its behaviour was set."""

    requests: int = 0
    busy: int = 0
    at_once: int = 0  # the maximum of `busy`


def create_sellers() -> FastAPI:
    app = FastAPI(title="Demo sellers")
    behaviours = dict.fromkeys(NAMES, Behaviour())
    counts = {name: Count() for name in NAMES}
    total = Count()

    @app.get("/")
    async def get_total() -> Count:
        return total

    @app.put("/{seller}", status_code=204)
    async def behave(seller: str, behaviour: Behaviour) -> None:
        nonlocal total
        behaviours[seller], counts[seller], total = behaviour, Count(), Count()

    @app.get("/{seller}")
    async def get_count(seller: str) -> Count:
        return counts[seller]

    @app.get("/{seller}/{book}")
    async def get_offer(seller: str, book: str) -> Response:
        if seller not in behaviours:
            raise HTTPException(404)
        behaviour, both = behaviours[seller], (counts[seller], total)
        for count in both:
            count.requests += 1
            count.busy += 1
            count.at_once = max(count.at_once, count.busy)
        try:
            await asyncio.sleep(behaviour.latency)
        finally:
            for count in both:
                count.busy -= 1
        if random.random() < behaviour.errors:  # noqa: S311 - chance, not a secret
            after = behaviour.retry_after
            headers = {} if after is None else {"Retry-After": str(after)}
            return Response(status_code=503, headers=headers)
        if behaviour.garbage:
            return Response(b'{"price": "all you have"' + b" " * behaviour.size)
        cents = 500 + crc32(f"{seller}{book}".encode()) % 2000
        offer = SellerOffer(
            price=f"{cents // 100}.{cents % 100:02}",
            currency="EUR",
            url=f"https://{seller}.example/{book}",
        )
        return Response(
            offer.model_dump_json().encode() + b" " * behaviour.size, media_type="application/json"
        )

    return app


@contextmanager
def listening(port: int = 0) -> Iterator[list[socket.socket]]:
    """A socket for each seller, at this port and the next ones, or at any."""
    with ExitStack() as stack:
        ports = range(port, port + len(NAMES)) if port else [0] * len(NAMES)
        yield [stack.enter_context(socket.create_server((HOST, port))) for port in ports]


def addresses(listeners: Sequence[socket.socket]) -> list[str]:
    return [f"http://{HOST}:{listener.getsockname()[1]}/" for listener in listeners]


def setting(listeners: Sequence[socket.socket]) -> str:
    """The value of OFFERS_SELLERS."""
    sellers = zip(NAMES, addresses(listeners), strict=True)
    return ",".join(f"{name}={address}{name}/{{book_id}}" for name, address in sellers)


def run_sellers(listeners: list[socket.socket]) -> None:
    config = uvicorn.Config(
        create_sellers(),
        log_level="critical",
        access_log=False,
        loop="uvloop",
        timeout_graceful_shutdown=1,  # s; a seller may hang
    )
    uvicorn.Server(config).run(sockets=listeners)
