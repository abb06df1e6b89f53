"""What is built and run by CI is named by content, and the same everywhere."""

import json
import re

import pytest

from tests.process import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def test_actions_are_pinned_by_digest_with_their_version():
    used = [
        (file.name, line.strip().removeprefix("- "))
        for file in WORKFLOWS
        for line in file.read_text().splitlines()
        if re.match(r"\s*(- )?uses:", line)
    ]

    assert len(used) > 5
    assert [each for each in used if not PINNED.fullmatch(each[1])] == []


def test_an_action_has_the_same_digest_everywhere():
    text = "".join(file.read_text() for file in WORKFLOWS)
    digests = set(re.findall(r"uses: (\S+)@(\S+)", text))

    assert len(digests) == len({action for action, _ in digests})


@pytest.mark.parametrize("file", [".github/workflows/ci.yml", ".gitlab-ci.yml", ".ci/run"])
def test_every_ci_calls_make_ci(file: str):
    assert re.search(r"(?m)^[ -]*(run: )?make ci( STACKS=.*)?$", (ROOT / file).read_text())


def test_workflows_touch_nothing_outside_of_the_clone():
    """Nor what may do that: .ci/run is for one kind of machine."""
    for file in [*WORKFLOWS, ROOT / ".gitlab-ci.yml", ROOT / "Makefile"]:
        assert re.findall(r"\.\./|\.ci/", file.read_text()) == [], file.name


# Series of which older ones get no more fixes, or lack what the configuration here uses.
OLDEST = {"nginx": (1, 30), "prom/prometheus": (3, 13), "grafana/grafana": (13, 2)}


def test_images_are_of_a_series_that_gets_fixes():
    text = (ROOT / "docker-compose.yml").read_text()
    tags = dict(re.findall(r"(?m)^    image: ([\w./-]+):v?(\S+)$", text))
    series = {name: tuple(map(int, tags[name].split("-")[0].split(".")[:2])) for name in OLDEST}

    assert {name: found for name, found in series.items() if found < OLDEST[name]} == {}
    assert [tag for tag in tags.values() if not re.match(r"\d", tag)] == []


def test_bot_watches_every_folder_that_names_images():
    text = (ROOT / ".github" / "dependabot.yml").read_text()
    folders = {
        ecosystem: set(re.findall(r"/[\w/]*", listed))
        for ecosystem, listed in re.findall(
            r"ecosystem: (\S+).*\n    director(?:y|ies): (.*)", text
        )
    }
    dockerfiles = (ROOT / "docker").rglob("Dockerfile")

    assert folders["docker"] == {f"/{file.parent.relative_to(ROOT)}" for file in dockerfiles}
    assert folders["docker-compose"] == {"/"}


def test_workflows_are_given_no_more_than_they_say():
    for file in WORKFLOWS:
        assert re.search(r"(?m)^permissions:( \{\}|\n  contents: read)$", file.read_text())
        assert file.read_text().count("actions/checkout@") == file.read_text().count(
            "persist-credentials: false"
        )


def test_packages_of_the_typescript_client_are_pinned_by_content_and_not_by_host():
    folder = ROOT / "clients" / "typescript"
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    declared = json.loads((folder / "package.json").read_text())
    own = locked.pop("")

    assert locked
    assert all("integrity" in package and "resolved" not in package for package in locked.values())
    for group in ("dependencies", "devDependencies"):
        assert own[group] == declared[group]
        assert all(re.fullmatch(r"[\d.]+", version) for version in declared[group].values())


def test_packages_of_the_python_client_are_pinned_by_content():
    text = (ROOT / "clients" / "python" / "requirements.lock").read_text()

    assert text.count("--hash=sha256:") > len(re.findall(r"(?m)^\S+==", text)) > 10
    assert "://" not in text
