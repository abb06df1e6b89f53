"""`make upgrade`: a service that its team has changed takes in a newer template."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from chassis.development.upgrade.ownership import (
    LIST,
    Owner,  # mine
    Ownership,  # mine
)
from chassis.development.upgrade.plan import Planner
from chassis.development.upgrade.trees import File, Repository, Tree
from tests.process import ROOT

PLANNED = {"deploy/"}  # folders that not every version has
MIGRATION = """revision: str = "{}"
down_revision: str | None = {}
about = "{}"
"""


def migration(revision: str, parent: str | None, about: str) -> str:
    """As Ruff formats one."""
    return MIGRATION.format(revision, parent and f'"{parent}"', about)


FILES = {
    LIST: (ROOT / LIST).read_text(),
    "chassis/version.py": 'VERSION = "1.0.0"\n',
    "chassis/clock.py": "now = 1\n",
    "chassis/old.py": "unused = 1\n",
    "app/about.py": 'NAME = "shelf"\nVERSION = "0.1.0"\n',
    "app/main.py": "first\nsecond\n\n\nhealth\nreviews\n",
    "app/models/poem.py": "title\n",
    "app/sample/rhymes.py": "digits\n",
    "app/services/accounts/users.py": "a\nb\nc\nd\ne\nf\n",
    "docker-compose.yml": "name: shelf\nimage: 1\n",
    "docker/nginx.conf": "gzip on\n",
    "README.md": "The template\n",
    "requirements.lock": "one==1\n",
    "migrations/versions/0001_chassis.py": migration("0001", None, "chassis"),
    "migrations/versions/0002_sample.py": migration("0002", "0001", "sample"),
}


class Upgrade(NamedTuple):
    code: int
    output: str
    errors: str


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def change(folder: Path, files: Mapping[str, str | None], *, commit: bool = True) -> None:
    """None deletes a file."""
    for name, text in files.items():
        path = folder / name
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if commit:
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "A change")


def upgrade(service: Path, template: Path, *options: str) -> Upgrade:
    command = [sys.executable, "-m", "chassis.development.upgrade", str(template), *options]
    done = subprocess.run(
        [*command, "--into", str(service)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return Upgrade(done.returncode, done.stdout, done.stderr)


def status(folder: Path) -> str:
    return git(folder, "status", "--porcelain", "--untracked-files=all")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    folder = tmp_path / "template"
    folder.mkdir()
    git(folder, "init", "--quiet")
    change(folder, {"README.md": "Before the first version\n"})
    change(folder, {**FILES})
    return folder


@pytest.fixture
def service(template: Path, tmp_path: Path) -> Path:
    """With a history of its own, as one that was downloaded has."""
    folder = tmp_path / "service"
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns(".git"))
    git(folder, "init", "--quiet")
    change(
        folder,
        {
            "app/about.py": 'NAME = "orders"\nVERSION = "7.0.0"\n',
            "docker-compose.yml": "name: orders\nimage: 1\n",
            "app/main.py": "first\nsecond\norders\n\n\nhealth\nreviews\n",
            "app/models/order.py": "number\n",
            "README.md": "Orders\n",
            "migrations/versions/0003_orders.py": migration("0003", "0002", "orders"),
            "migrations/versions/0004_paid.py": migration("0004", "0003", "paid"),
        },
    )
    return folder


def test_service_gets_what_is_new_and_keeps_what_is_its_own(template: Path, service: Path):
    change(
        template,
        {
            "chassis/version.py": 'VERSION = "1.1.0"\n',
            "chassis/clock.py": "now = 2\n",
            "chassis/old.py": None,
            "chassis/rooms/door.py": "open = 1\n",
            "app/about.py": 'NAME = "shelf"\nVERSION = "0.2.0"\n# new\n',
            "app/main.py": "first\nsecond\n\n\nhealth\nevents\nreviews\n",
            "app/services/accounts/users.py": "a\nb\nc\nd\ne\nF\n",
            "docker-compose.yml": "name: shelf\nimage: 2\n",
            "README.md": "The template, better\n",
        },
    )

    done = upgrade(service, template)

    assert done.code == 0, done.errors
    read = {str(path.relative_to(service)): path.read_text() for path in service.rglob("*.*")
            if path.is_file() and ".git" not in path.parts}  # fmt: skip
    assert read["chassis/version.py"] == 'VERSION = "1.1.0"\n'
    assert read["chassis/clock.py"] == "now = 2\n"
    assert "chassis/old.py" not in read
    assert read["chassis/rooms/door.py"] == "open = 1\n"
    assert read["app/about.py"] == 'NAME = "orders"\nVERSION = "7.0.0"\n# new\n'
    assert read["app/main.py"] == "first\nsecond\norders\n\n\nhealth\nevents\nreviews\n"
    assert read["app/models/order.py"] == "number\n"
    assert read["app/services/accounts/users.py"] == "a\nb\nc\nd\ne\nF\n"
    assert read["docker-compose.yml"] == "name: orders\nimage: 2\n"
    assert read["README.md"] == "Orders\n"
    assert "Yours, and newer in the template; not touched:\n  README.md\n" in done.output
    assert git(service, "log", "--oneline").count("\n") == 1


def test_new_migrations_come_after_the_newest_of_the_service_each_time(
    template: Path, service: Path
):
    versions = service / "migrations/versions"
    change(
        template, {"migrations/versions/0003_chassis_a.py": migration("0003", "0002", "chassis_a")}
    )
    first = upgrade(service, template)
    change(service, {"migrations/versions/0006_more.py": migration("0006", "0005", "more")})
    change(
        template,
        {
            "migrations/versions/0004_chassis_b.py": migration("0004", "0003", "chassis_b"),
            "migrations/versions/0005_accounts.py": migration("0005", "0004", "accounts"),
        },
    )

    second = upgrade(service, template)

    assert "0005_chassis_a.py, the template's migrations/versions/0003_chassis_a.py" in first.output
    assert (versions / "0005_chassis_a.py").read_text() == migration("0005", "0004", "chassis_a")
    assert second.code == 0, second.errors
    assert (versions / "0007_chassis_b.py").read_text() == migration("0007", "0006", "chassis_b")
    assert (versions / "0008_accounts.py").read_text() == migration("0008", "0007", "accounts")
    assert len(list(versions.iterdir())) == 8


def test_changed_file_of_the_chassis_is_refused_with_its_difference(template: Path, service: Path):
    change(service, {"chassis/clock.py": "now = 3\n", "docker/nginx.conf": "gzip off\n"})
    change(template, {"chassis/version.py": 'VERSION = "1.1.0"\n', "chassis/clock.py": "now = 2\n"})

    refused = upgrade(service, template)
    untouched = status(service)
    merged = upgrade(service, template, "--merge")

    assert (refused.code, refused.output, untouched) == (1, "", "")
    assert "yours/chassis/clock.py\n@@ -1 +1 @@\n-now = 1\n+now = 3\n" in refused.errors
    assert "-gzip on\n+gzip off\n" in refused.errors
    assert "2 files of the chassis differ from 1.0.0" in refused.errors
    assert merged.code == 1
    assert "chassis/clock.py (1)" in merged.output
    assert (service / "docker/nginx.conf").read_text() == "gzip off\n"


def test_conflict_is_marked_and_listed(template: Path, service: Path):
    change(service, {"app/services/accounts/users.py": "a\nb\nc\nd\ne\nmine\n"})
    change(template, {"app/services/accounts/users.py": "A\nb\nc\nd\ne\ntheirs\n"})

    done = upgrade(service, template)

    text = (service / "app/services/accounts/users.py").read_text()
    assert done.code == 1
    assert "Conflicts, marked in the file:\n  app/services/accounts/users.py (1)\n" in done.output
    assert text.startswith("A\nb\n")
    assert "<<<<<<< yours\nmine\n||||||| 1.0.0" in text
    assert "=======\ntheirs\n>>>>>>> 1.0.0" in text
    assert "app/services/accounts/users.py" in subprocess.run(
        ["git", "diff", "--check"], cwd=service, check=False, capture_output=True, text=True
    ).stdout  # fmt: skip


def test_removed_sample_stays_removed_and_gets_nothing_new(template: Path, service: Path):
    change(
        service,
        {
            "app/models/poem.py": None,
            "app/sample/rhymes.py": None,
            "migrations/versions/0002_sample.py": None,
            "migrations/versions/0003_orders.py": migration("0003", "0001", "orders"),
        },
    )
    change(
        template,
        {
            "app/models/poem.py": "title\nsubtitle\n",
            "app/models/publisher.py": "name\n",
            "app/logins/keys.py": "key\n",
            "migrations/versions/0003_subtitle.py": migration("0003", "0002", "subtitle"),
            "migrations/versions/0004_chassis_c.py": migration("0004", "0003", "chassis_c"),
        },
    )

    done = upgrade(service, template)

    assert done.code == 0, done.errors
    assert status(service).split() == [
        *("??", ".template"),
        *("??", "app/logins/keys.py"),
        *("??", "migrations/versions/0005_chassis_c.py"),
    ]
    assert "still deleted:\n  app/models/poem.py\n" in done.output
    added = (service / "migrations/versions/0005_chassis_c.py").read_text()
    assert added == migration("0005", "0004", "chassis_c")


# Renames, and removes the sample and itself, as `make mine` does.
MAKE_MINE = """
import sys
from pathlib import Path

for path in Path().rglob("*"):
    if path.is_file() and not {".git", "__pycache__"}.intersection(path.parts):
        lines = path.read_text().replace("shelf", sys.argv[1]).splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.endswith("# sample\\n")))
assert sys.argv[2:] == ["--title", "", "--sample", "no"]
Path("app/models/poem.py").unlink()
Path("app/sample/rhymes.py").unlink()
Path("make_mine/__main__.py").unlink()
"""


def test_what_make_mine_did_is_no_change_of_the_service(template: Path, tmp_path: Path):
    change(
        template,
        {
            "make_mine/__main__.py": MAKE_MINE,
            "chassis/clock.py": "now = 1.5\npoems = 1  # sample\n",
            "tests/chassis/test_a.py": 'name = "shelf"\n',
        },
    )
    service = tmp_path / "service"
    git(tmp_path, "clone", "--quiet", str(template), str(service))
    command = [sys.executable, "-m", "make_mine", "orders", "--title", "", "--sample", "no"]
    subprocess.run(command, cwd=service, check=True)
    change(service, {"app/models/order.py": "number\n"})
    change(
        template,
        {
            "chassis/clock.py": "now = 2\npoems = 2  # sample\n",
            "tests/chassis/test_a.py": 'name = "shelf"\nnew = 1\n',
            "app/models/publisher.py": "name\n",
        },
    )

    done = upgrade(service, template)

    assert done.code == 0, done.errors
    assert (service / "chassis/clock.py").read_text() == "now = 2\n"
    assert (service / "tests/chassis/test_a.py").read_text() == 'name = "orders"\nnew = 1\n'
    assert len(status(service).splitlines()) == 3


def test_locks_are_the_templates_to_be_locked_anew(template: Path, service: Path):
    change(service, {"requirements.lock": "mine==1\none==1\n"})
    change(template, {"requirements.lock": "one==2\n"})

    done = upgrade(service, template)

    assert (service / "requirements.lock").read_text() == "one==2\n"
    assert "make lock KEEP=1" in done.output


def test_base_is_what_both_histories_have_in_common(template: Path, tmp_path: Path):
    began = git(template, "rev-parse", "HEAD").strip()
    service = tmp_path / "service"
    git(tmp_path, "clone", "--quiet", str(template), str(service))
    change(service, {"app/main.py": "orders\n"})
    change(template, {"docker/nginx.conf": "gzip on\nzstd on\n"})
    change(template, {"chassis/version.py": 'VERSION = "1.1.0"\n'})

    done = upgrade(service, template)

    assert f"Chassis 1.0.0 ({began[:12]}) -> 1.1.0" in done.output


def test_base_is_what_the_last_upgrade_took_in(template: Path, tmp_path: Path):
    service = tmp_path / "service"
    git(tmp_path, "clone", "--quiet", str(template), str(service))
    change(template, {"docker/nginx.conf": "gzip on\nzstd on\n"})
    upgrade(service, template)
    change(service, {})
    taken = git(template, "rev-parse", "HEAD").strip()
    change(template, {"docker/nginx.conf": "gzip on\nzstd on\nbrotli on\n"})

    done = upgrade(service, template)

    assert done.code == 0, done.errors
    assert f"Chassis 1.0.0 ({taken[:12]}) ->" in done.output
    assert (service / "docker/nginx.conf").read_text() == "gzip on\nzstd on\nbrotli on\n"


def test_base_of_a_download_is_the_tag_of_its_version_else_the_commit_that_it_resembles_most(
    template: Path, tmp_path: Path
):
    change(template, {"docker/nginx.conf": "gzip on\nbrotli on\n"})
    began = git(template, "rev-parse", "HEAD").strip()
    service = tmp_path / "service"
    shutil.copytree(template, service, ignore=shutil.ignore_patterns(".git"))
    git(service, "init", "--quiet")
    change(service, {"app/main.py": "orders\n"})
    change(template, {"docker/nginx.conf": "gzip on\nbrotli on\nzstd on\n"})
    later = git(template, "rev-parse", "HEAD").strip()
    change(template, {"chassis/version.py": 'VERSION = "1.1.0"\n'})

    done = upgrade(service, template)
    content = (service / "docker/nginx.conf").read_text()
    git(service, "reset", "--hard", "--quiet")
    git(service, "clean", "-fd", "--quiet")
    git(template, "tag", "chassis-1.0.0", later)
    tagged = upgrade(service, template)

    assert f"Chassis 1.0.0 ({began[:12]}) -> 1.1.0" in done.output
    assert content == "gzip on\nbrotli on\nzstd on\n"
    assert f"differ from 1.0.0 ({later[:12]})" in tagged.errors


def test_tag_is_taken_and_what_is_up_to_date_stays(template: Path, service: Path):
    change(template, {"chassis/clock.py": "now = 2\n"})
    git(template, "tag", "chassis-1.0.1")
    change(template, {"chassis/clock.py": "now = 3\n"})

    first = upgrade(service, template, "--to", "chassis-1.0.1")
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "Upgrade")
    second = upgrade(service, template, "--to", "chassis-1.0.1")

    assert first.code == 0, first.errors
    assert (service / "chassis/clock.py").read_text() == "now = 2\n"
    assert second.output.startswith("Nothing to do")
    assert status(service) == ""


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        ({"app/new.py": "a"}, [], "There are changes that are not committed"),
        ({}, ["--to", "chassis-9"], "The template has no branch, tag or commit chassis-9"),
        ({}, ["--base", "nothing"], "The template has no branch, tag or commit nothing"),
    ],
)
def test_what_it_cannot_do_it_says(
    template: Path, service: Path, fault: dict[str, str | None], options: list[str], message: str
):
    change(service, fault, commit=False)

    done = upgrade(service, template, *options)

    assert (done.code, done.errors[: len(message)]) == (1, message)
    assert "Traceback" not in done.errors


def test_version_that_the_template_never_had_and_no_repository_are_said(
    template: Path, service: Path, tmp_path: Path
):
    change(service, {"chassis/version.py": 'VERSION = "0.9.0"\n'})

    unknown = upgrade(service, template)
    nowhere = upgrade(service, tmp_path / "nowhere")

    assert unknown.errors.startswith("No commit of the template has chassis 0.9.0. Name the one")
    assert nowhere.errors.startswith("FROM=")
    assert "is no git repository that can be read" in nowhere.errors


# mine: begin
def test_list_says_of_each_file_to_whom_it_belongs():
    owner = Ownership((ROOT / LIST).read_text()).of
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").split()
    service = {path for path in listed if owner(path) is Owner.SERVICE}

    assert service == {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md"}
    assert {owner(path) for path in listed if path.startswith("chassis/")} == {Owner.CHASSIS}
    assert owner("app/main.py") is Owner.MERGED
    assert owner("app/services/accounts/users.py") is Owner.MERGED
    assert owner("app/services/poems.py") is Owner.SAMPLE
    assert owner("migrations/versions/0009_chassis_notes.py") is Owner.CHASSIS
    assert owner("migrations/versions/0009_publishers.py") is Owner.SAMPLE


def test_no_pattern_of_the_list_is_without_a_file():
    ownership = Ownership((ROOT / LIST).read_text())
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").split()
    used = {ownership.pattern_of(path) for path in listed}

    assert {pattern for pattern, _ in ownership.patterns} - used <= PLANNED


# mine: end
def test_binary_file_and_mode_come_along_and_a_changed_one_is_a_conflict():
    base: Tree = {LIST: File(FILES[LIST].encode()), "data/a.png": File(b"\0a")}
    newer = base | {"data/a.png": File(b"\0b"), "docker/start.sh": File(b"#!", executable=True)}

    plain = Planner(base, base, newer, ("", "")).run(merge_chassis=False)
    changed = Planner(base, base | {"data/a.png": File(b"\0c")}, newer, ("", "")).run(
        merge_chassis=False
    )

    assert plain.written["data/a.png"].content == b"\0b"
    assert plain.written["docker/start.sh"].executable
    assert [conflict.path for conflict in changed.conflicts] == ["data/a.png"]
    assert changed.written["data/a.png"].content == b"\0c"


def test_trees_are_those_of_commits(template: Path):
    tree = Repository(template).tree("HEAD")

    assert {path: file.content.decode() for path, file in tree.items()} == FILES
