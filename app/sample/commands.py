"""The command of the sample; app/cli.py has the others."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import app, command_settings, console
from app.sample.catalogue import import_by_hand


@app.command()
def import_books(file: Annotated[Path, typer.Argument(help="In the goodbooks format.")]) -> None:
    """Add the books of a CSV file; those of an earlier import are left as they are."""
    import_by_hand(command_settings().database, file, console)
