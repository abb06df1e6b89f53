"""The sample of `python -m app serve`: booksellers and a small catalogue."""

import multiprocessing
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import select

from app.development.demo_sellers import addresses, listening, run_sellers, setting
from app.models import Book
from app.sample.catalogue import import_catalogue
from app.settings import Settings
from chassis.database.engines import create_engine
from chassis.processes.parent_death import end_with_parent
from chassis.settings.sources import Sources, read

PATH = "/v1/books"
BOOKS = Path(__file__).parent.parent.parent / "data" / "classics.csv"


class GivenSellers(Sources):
    offers_sellers: str | None = None


def start_sellers(stack: ExitStack) -> list[str]:
    if read(GivenSellers).offers_sellers:
        return []
    with listening() as listeners:
        sellers = multiprocessing.get_context("fork").Process(target=_sell, args=(listeners,))
        sellers.start()
        stack.callback(sellers.join)
        stack.callback(sellers.terminate)
        os.environ["OFFERS_SELLERS"] = setting(listeners)
        urls = " ".join(addresses(listeners))
        return [f"Sellers    {urls} as a demo, as OFFERS_SELLERS is not set"]


def _sell(listeners: list[socket.socket]) -> None:
    os.setsid()
    end_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # uvicorn raises it again when it has stopped
    run_sellers(listeners)


async def fill(settings: Settings) -> list[str]:
    engine = create_engine(settings.database, "maintenance")
    try:
        async with engine.connect() as connection:
            has_books = await connection.scalar(select(Book.id).limit(1)) is not None
    finally:
        await engine.dispose()
    if has_books:
        return []
    imported = await import_catalogue(settings.database, BOOKS, lambda done, total: None)
    return [f"Catalogue  {imported.added} books of {BOOKS.name}, as there was none"]
