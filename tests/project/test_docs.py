"""The pages name only what exists: other pages, headings, files, settings, commands."""

import re

import pytest
import typer

from app.commands import accounts as accounts  # adds its own to `app`
from app.development import commands
from app.settings import Settings
from chassis.settings.names import fields_of
from tests.process import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
SETTINGS = {name for name, _ in fields_of(Settings)}
EXAMPLES = re.compile("order|NNNN|LOG_LEVLE")  # what the reader writes

pytestmark = pytest.mark.parametrize("page", TEXTS)


def code_of(page: str) -> str:
    return "\n".join(re.findall(r"```.+?```|`[^`]+`", TEXTS[page], re.DOTALL))


def anchors_of(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(page: str):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", TEXTS[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path.read_text("utf-8")), f"{target}#{anchor}"


def test_files_exist(page: str):
    named = re.findall(r"(?:app|benchmarks|chassis|docker|tests)/[\w./-]+\w", code_of(page))

    assert [
        name for name in named if not EXAMPLES.search(name) and not (ROOT / name).exists()
    ] == []


def test_settings_exist(page: str):
    groups = {name.partition("_")[0] for name in SETTINGS}
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")

    named = re.findall(r"(?<![$\w])[A-Z]+_[A-Z_]*[A-Z](?!\w)", code_of(page))
    ours = [name for name in named if name.partition("_")[0] in groups]
    gone = [name for name in ours if name not in SETTINGS and f"${{{name}" not in compose]
    assert [name for name in gone if not EXAMPLES.search(name)] == []


def test_commands_exist(page: str):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    names = set(typer.main.get_command(commands.app).commands)  # type: ignore[attr-defined]

    assert set(re.findall(r"\bmake ([a-z-]+)", code_of(page))) <= targets
    assert set(re.findall(r"python -m app ([a-z-]+)", code_of(page))) <= names
