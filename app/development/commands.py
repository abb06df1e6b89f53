"""The commands of development, which the production image does not have."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.about import NAME
from app.cli import app
from app.development import sample_commands  # noqa: F401  # sample
from app.settings import read_service_settings

# Each command imports what it needs: the others start sooner.


@app.command()
def serve(
    reload: Annotated[bool, typer.Option(help="Restart when the source changes.")] = False,
    mariadb: Annotated[bool, typer.Option(help="A private MariaDB instead of SQLite.")] = False,
    jobs: Annotated[bool, typer.Option(help="With a job worker beside it.")] = True,
) -> None:
    """Run the service; start servers of its own where no URL is set."""
    from app.development.sample import SAMPLE
    from chassis.development.serve import serve as serve_until_stopped

    serve_until_stopped(
        NAME, SAMPLE, read_service_settings, reload=reload, mariadb=mariadb, jobs=jobs
    )


@app.command()
def make_migration(
    name: Annotated[str, typer.Argument(help="What it is about, such as `orders`.")],
    empty: Annotated[bool, typer.Option(help="Without operations, to write them by hand.")] = False,
) -> None:
    """Write a migration of what has changed in the models; needs no database."""
    from alembic.util import CommandError

    from chassis.development.make_migration.write import write_migration

    try:
        written = write_migration(name, empty=empty)
    except CommandError as error:
        raise SystemExit(f"No migration was written. {error}") from None
    if written is None:
        typer.echo("Nothing to write: the migrations make the tables of app/models/__init__.py")
        return
    typer.echo(f"{written.path.relative_to(Path.cwd())}: read it, then run: make test")
    for warning in written.warnings:
        typer.echo(f"Note: {warning}", err=True)


@app.command()
def make_resource(
    name: Annotated[str, typer.Argument(help="A noun, such as `order`.")],
    plural: Annotated[str, typer.Option(help="Else the name with an s.")] = "",
    fields: Annotated[str, typer.Option(help="Such as `number:str:50:unique total:money`.")] = "",
    owned: Annotated[bool, typer.Option(help="Private: each account has its own.")] = False,
    remove: Annotated[bool, typer.Option(help="Delete its files and its lines.")] = False,
) -> None:
    """Write a resource: model, schemas, service, router, tests, wiring and migration."""
    from app.development.make_resource.fields import ResourceError
    from app.development.make_resource.write import read_models, remove_resource, write_resource

    if name.endswith("s") and not plural:
        raise SystemExit(f"NAME={name}: write the noun for one, or its plural as well: PLURAL=...")
    plural = plural or f"{name}s"
    try:
        if remove:
            paths = remove_resource(name, plural)
        else:
            paths = write_resource(name, plural, fields, read_models(), is_owned=owned)
    except ResourceError as error:
        raise SystemExit(str(error)) from None
    for path in paths:
        done = "written" if path.exists() else "deleted"
        typer.echo(f"{done}: {path.relative_to(Path.cwd())}")
    if not remove:
        typer.echo(f"Next: make test ONLY=tests/app/test_{plural}.py, then make format lint test")
    elif not paths[-1].exists():
        typer.echo("A database that has this migration already needs another: rm -r var, locally")


@app.command()
def openapi(
    why: Annotated[str, typer.Option(help="Why its breaking changes are wanted.")] = "",
) -> None:
    """Write docs/openapi.json, the contract that clients are made from."""
    from chassis.clock import now
    from chassis.development.lint_openapi.read import write

    write(_document(), now().date(), why)


@app.command()
def lint_openapi() -> None:
    """Fail unless docs/openapi.json is what the code makes, is described, and breaks no client."""
    from chassis.clock import now
    from chassis.development.lint_openapi.read import lint

    verdict = lint(_document(), now().date())
    for line in verdict.lines:
        typer.echo(line, err=True)
    if verdict.fault:
        raise SystemExit(verdict.fault)


def _document() -> dict[str, Any]:
    """Without servers and settings, on which nothing in it depends."""
    from app.main import create_app
    from app.settings import Settings

    defaults: Any = Settings
    return create_app(defaults.model_construct()).openapi()
