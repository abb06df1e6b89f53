"""`python -m app make-resource`: writes the files of a resource, its wiring and its migration."""

import re
import subprocess
import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from app.development.make_resource.fields import ResourceError, camel, check_name, parse_fields
from app.development.make_resource.render import Resource
from app.development.make_resource.wiring import wire
from app.models import Base, user

ROOT = Path.cwd()


class Models(NamedTuple):
    tables: Mapping[str, str]  # by resource
    private: Container[str]  # resources that accounts own


def write_resource(
    single: str, plural: str, fields: str, models: Models, *, is_owned: bool
) -> list[Path]:
    """The paths of what was written. Raises ResourceError, having changed nothing."""
    check_name("NAME", single)
    check_name("PLURAL", plural)
    if single == plural:
        raise ResourceError(f"PLURAL={plural}: the plural must differ from the name")
    if plural in models.tables.values():
        raise ResourceError(
            f"NAME={single}: there is a table {plural} already; choose another name, or remove "
            "that first (REMOVE=yes)"
        )
    for name, file in ((plural, "app/main.py"), (camel(plural), "app/dependencies.py")):
        if re.search(rf"\b{name}\b", (ROOT / file).read_text()):
            raise ResourceError(f"PLURAL={plural}: {file} uses the name {name} already")
    parsed = parse_fields(fields, single, models.tables, models.private)
    for field in parsed:
        if field.is_private and not is_owned:
            raise ResourceError(
                f"ref({field.refers_to}): each account has its own; write OWNED=yes here, too"
            )
    resource = Resource(single, plural, parsed, is_owned)
    adders = {
        field.refers_to: _adder(field.refers_to, field.table) for field in parsed if field.refers_to
    }
    contents = {ROOT / name: text for name, text in resource.render(adders).items()}
    for path in contents:
        if path.exists():
            raise ResourceError(f"{path.relative_to(ROOT)} exists already; nothing was written")
    contents |= wire(ROOT, resource)
    for path, text in contents.items():
        path.write_text(text)
    _format(contents)
    _run("make-migration", plural)
    _run("openapi")
    return [*contents]


def remove_resource(single: str, plural: str) -> list[Path]:
    """Deletes its files and takes its lines out; the paths of both. Raises ResourceError."""
    check_name("NAME", single)
    check_name("PLURAL", plural)
    resource = Resource(single, plural, [])
    files = [ROOT / name for name in resource.files]
    if missing := [path for path in files[:4] if not path.exists()]:
        raise ResourceError(f"{missing[0].relative_to(ROOT)} does not exist; nothing was removed")
    contents = wire(ROOT, resource, remove=True)
    own = {*files, *contents}
    uses = re.compile(
        rf'"{plural}\.id"|app\.(models|schemas)\.{single}\b|app\.(services|routers)\.{plural}\b'
    )
    for other in sorted({*(ROOT / "app").rglob("*.py")} - own):
        if uses.search(other.read_text()):
            name = other.relative_to(ROOT)
            raise ResourceError(f"{name} uses it: change or remove that first; nothing was removed")
    for path in files:
        path.unlink(missing_ok=True)
    for path, text in contents.items():
        path.write_text(text)
    _format(contents)
    _run("openapi")
    migrations = sorted((ROOT / "migrations/versions").glob(f"*_{plural}.py"))
    if migrations and _is_new(migrations[-1]):
        migrations[-1].unlink()  # nobody else has it
        return [*files, *contents, migrations[-1]]
    _run("make-migration", f"drop_{plural}")
    return [*files, *contents]


def read_models() -> Models:
    """The service's own, but for those of accounts, by resource: `price_list` for `PriceList`."""
    tables, private = {}, set()
    for model in (mapper.class_ for mapper in Base.registry.mappers):
        is_own = model.__module__.startswith("app.models.")
        if is_own and model.__module__ != user.__name__ and "id" in model.__table__.c:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
            tables[name] = model.__tablename__
            if "user_id" in model.__table__.c:
                private.add(name)
    return Models(tables, private)


def _adder(single: str, plural: str) -> tuple[str, str]:
    """The import and the call that add one of a resource, in a test of another one."""
    tests = ROOT / f"tests/app/test_{plural}.py"
    if tests.exists() and f"async def add_{single}(" in tests.read_text():
        line = f"from tests.app.test_{plural} import add_{single}"
        return line, f"add_{single}(client, headers, number)"
    raise ResourceError(
        f"ref({single}): {tests.relative_to(ROOT)} has no function add_{single}(client, headers, "
        "number) that makes one and returns its JSON; write it first, as the new tests need it"
    )


def _run(*command: str) -> None:
    """In a process of its own, which imports the code as it is now."""
    subprocess.run([sys.executable, "-m", "app", *command], check=True)


def _is_new(path: Path) -> bool:
    """Whether git does not have the file."""
    known = subprocess.run(
        ["git", "ls-files", "--error-unmatch", str(path)], check=False, capture_output=True
    )
    return known.returncode != 0


def _format(paths: Iterable[Path]) -> None:
    python = [str(path) for path in paths if path.suffix == ".py" and path.exists()]
    for arguments in (["check", "--fix-only"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *arguments, "--quiet", *python]
        subprocess.run(ruff, check=True)
