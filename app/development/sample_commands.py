"""The command of the sample for development; commands.py has the others."""

from typing import Annotated

import typer

from app.cli import app
from app.sample import commands  # noqa: F401 - as app/__main__.py does in production


@app.command()
def demo_sellers(
    port: Annotated[int, typer.Option(min=0, max=65533, help="The first of three; 0: any.")] = 9900,
) -> None:
    """Run booksellers for GET /v1/books/{book_id}/offers, as slow and broken as they are told."""
    from app.development.demo_sellers import listening, run_sellers, setting

    with listening(port) as listeners:
        typer.echo(f"OFFERS_SELLERS='{setting(listeners)}'")
        run_sellers(listeners)
