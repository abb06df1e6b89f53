"""`make upgrade` of a whole checkout: the service that comes out migrates, starts and has both."""

import asyncio
import re
import secrets
import shutil
import subprocess
import sys  # mine
from pathlib import Path

import pytest
from sqlalchemy import URL

from app.about import NAME
from tests.command import finish, start
from tests.conftest import Servers, execute
from tests.project.test_make_resource import copy_checkout, make
from tests.project.test_upgrade import change, git, status, upgrade

NOTES = '''"""Notes of operators"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "{revision}"
down_revision: str | Sequence[str] | None = "{parent}"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("operator_notes", sa.Column("id", sa.Integer(), primary_key=True))


def downgrade() -> None:
    op.drop_table("operator_notes")
'''


def edit(folder: Path, name: str, old: str, new: str) -> dict[str, str]:
    text = (folder / name).read_text()
    assert old in text, f"{name} has no {old}"
    return {name: text.replace(old, new, 1)}


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template; and a service, renamed, with a resource of its own and changed accounts."""
    folder = tmp_path_factory.mktemp("checkouts")
    template, service = folder / "template", folder / "service"
    template.mkdir()
    copy_checkout(template)
    git(template, "commit", "--quiet", "--message", "The template")
    git(folder, "clone", "--quiet", str(template), str(service))
    renamed = edit(service, "app/about.py", f'"{NAME}"', '"sales"')
    renamed |= edit(service, "docker-compose.yml", f"&name {NAME}", "&name sales")
    renamed |= edit(service, "docker-compose.override.yml", f"name: {NAME}-", "name: sales-")
    renamed |= edit(service, "README.md", "# ", "# Sales. ")
    renamed |= edit(service, "app/services/accounts/users.py", '"""', '"""Ours. ')
    change(service, renamed)
    make(service, "order", "--owned", "--fields", "number:str:50:unique total:money:index")
    change(service, {})
    return folder


@pytest.fixture
def template(checkouts: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(checkouts / "template", tmp_path / "template")
    release(copy)
    return copy


@pytest.fixture
def service(checkouts: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkouts / "service", tmp_path / "service")


def release(template: Path) -> None:
    versions = sorted(path.name for path in (template / "migrations/versions").glob("0*.py"))
    parent = versions[-1][:4]
    revision = f"{int(parent) + 1:04}"
    notes = NOTES.format(revision=revision, parent=parent)
    newer = {f"migrations/versions/{revision}_chassis_notes.py": notes}
    newer |= edit(template, "chassis/version.py", 'VERSION = "', 'VERSION = "9.')
    newer |= edit(template, "chassis/clock.py", "\n\n\n", "\n\n# newer\n")
    newer |= edit(template, "app/about.py", 'VERSION = "', 'VERSION = "8.')
    for name in ("app/services/accounts/users.py", "app/main.py"):
        newer |= {name: f"{(template / name).read_text()}\n# newer\n"}
    newer |= edit(template, "docker-compose.yml", f"&name {NAME}\n", f"&name {NAME}\n# newer\n")
    change(template, newer)


@pytest.mark.drill
def test_service_takes_in_a_newer_template_and_runs_on_both_databases(
    template: Path, service: Path, tmp_path: Path, mariadb: URL, servers: Servers
):
    before = {
        path.name: path.read_bytes() for path in (service / "migrations/versions").glob("*.py")
    }
    database = f"test_{secrets.token_hex(4)}"

    done = upgrade(service, template)

    assert done.code == 0, done.output + done.errors
    read = {name: (service / name).read_text() for name in status(service).split()[1::2]}
    [added] = [name for name in read if name.startswith("migrations/versions/")]
    assert re.fullmatch(r"migrations/versions/00\d\d_chassis_notes.py", added)
    newest = max(before)[:4]
    assert f'down_revision: str | Sequence[str] | None = "{newest}"' in read[added]
    assert {
        name: (service / "migrations/versions" / name).read_bytes() for name in before
    } == before
    assert 'VERSION = "9.' in read["chassis/version.py"]
    assert read["app/services/accounts/users.py"].endswith("# newer\n")
    assert '"""Ours. ' in read["app/services/accounts/users.py"]
    assert "# newer" in read["app/main.py"]
    assert re.search(r"\borders\b", read["app/main.py"])
    assert "name: &name sales\n# newer\n" in read["docker-compose.yml"]
    assert 'NAME = "sales"' in (service / "app/about.py").read_text()
    assert set(read) == {
        ".template",
        "app/main.py",
        "app/services/accounts/users.py",
        "chassis/clock.py",
        "chassis/version.py",
        "docker-compose.yml",
        added,
    }

    asyncio.run(execute(mariadb, f"CREATE DATABASE {database}"))
    try:
        for url in (
            f"sqlite+aiosqlite:///{tmp_path}/service.db",
            mariadb.set(database=database).render_as_string(hide_password=False),
        ):
            variables = {"PYTHONPATH": service, "DATABASE_URL": url}
            variables["REDIS_URL"] = servers.redis_url
            code, output, errors = finish(start(service, "migrate", **variables))
            assert code == 0, errors
            assert added.rpartition("/")[2][:4] in output
    finally:
        asyncio.run(execute(mariadb, f"DROP DATABASE {database}"))


@pytest.mark.drill
def test_the_way_back_leaves_nothing(template: Path, service: Path):
    head = git(service, "rev-parse", "HEAD")

    done = upgrade(service, template)
    git(service, "reset", "--hard", "--quiet")
    git(service, "clean", "-fd", "--quiet")

    assert "git reset --hard && git clean -fd" in done.output
    assert (status(service), git(service, "rev-parse", "HEAD")) == ("", head)


@pytest.mark.drill
def test_make_upgrade_needs_no_packages(template: Path, service: Path, tmp_path: Path):
    """As in a checkout without .venv, with the Python of the system."""
    done = subprocess.run(
        ["make", "upgrade", f"FROM={template}"],
        cwd=service,
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr
    assert "9." in (service / "chassis/version.py").read_text()
    assert not (service / ".venv").exists()


# mine: begin
@pytest.mark.drill
def test_service_that_make_mine_made_takes_in_a_newer_template(template: Path, tmp_path: Path):
    """Without the sample, whose lines and files the newer template still has."""
    service = tmp_path / "mine"
    git(tmp_path, "clone", "--quiet", str(template), str(service))
    git(service, "reset", "--quiet", "--hard", "HEAD~1")
    answers = ["sales", "--title", "Sales API", "--sample", "no"]
    subprocess.run([sys.executable, "-m", "make_mine", *answers], cwd=service, check=True)
    change(service, {})

    done = upgrade(service, template)

    assert done.code == 0, done.output + done.errors
    changed = set(status(service).split()[1::2])
    [added] = [name for name in changed if name.startswith("migrations/versions/")]
    assert changed == {
        ".template",
        "app/main.py",
        "app/services/accounts/users.py",
        "chassis/clock.py",
        "chassis/version.py",
        "docker-compose.yml",
        added,
    }
    assert NAME not in git(service, "diff").lower()


# mine: end
