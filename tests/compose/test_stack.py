"""One test that fails is no reason for the next to fail."""

from pathlib import Path

import pytest

from tests.compose.stack import PRODUCTION, Stack, Started, images_of, leftovers, stack


def count(project: str) -> int:
    return len(images_of(project)) + sum(map(len, leftovers(project).values()))


def fail_half_way(folder: Path, seen: list[tuple[Stack, Started, int]]) -> None:
    """With a volume that only a file of its own knows, and with a script that goes on."""
    with stack(folder, "test-failed", PRODUCTION) as made:
        made.done("make", "--silent", "secrets")
        (folder / "more.yml").write_text(
            "services: {valkey: {volumes: ['more:/more']}}\nvolumes: {more: {}}\n"
        )
        made.compose("build", "--quiet", "api", "worker")
        made.compose("-f", "more.yml", "up", "--detach", "--wait", "--no-deps", "valkey")
        script = made.start("sleep", "600")
        seen.append((made, script, count(made.project)))
        raise ZeroDivisionError


def test_stack_of_a_test_that_fails_leaves_nothing(tmp_path: Path):
    seen: list[tuple[Stack, Started, int]] = []
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path, seen)

    [(made, script, before)] = seen
    assert before >= 5
    assert not any(leftovers(made.project).values())
    assert not images_of(made.project)
    assert script.process.wait() == -9
    script.output.unlink()
