"""What a control group says of memory, in the files of both versions."""

from pathlib import Path

import pytest

from chassis.server.container_memory import ContainerMemory, container_memory

V1 = {
    "memory/memory.usage_in_bytes": "300\n",
    "memory/memory.limit_in_bytes": "1000\n",
    "memory/memory.stat": "cache 200\ninactive_file 1\ntotal_inactive_file 100\n",
}
V2 = {
    "memory.current": "300\n",
    "memory.max": "1000\n",
    "memory.stat": "anon 200\ninactive_file 100\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("files", [V1, V2])
def test_file_cache_that_can_be_dropped_is_not_in_use(tmp_path: Path, files: dict[str, str]):
    assert container_memory(write(tmp_path, files)) == ContainerMemory(used=200, limit=1000)


def test_without_a_limit_or_a_container_there_is_nothing_to_tell(tmp_path: Path):
    assert container_memory(tmp_path) is None
    assert container_memory(write(tmp_path, V2 | {"memory.max": "max\n"})) is None
