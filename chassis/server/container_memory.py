"""Memory of the container that this process runs in, as its control group counts it."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")

# Usage, limit, statistics and in these the file cache that is dropped first, of either version.
FILES = (
    ("memory.current", "memory.max", "memory.stat", "inactive_file"),
    (
        "memory/memory.usage_in_bytes",
        "memory/memory.limit_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


class ContainerMemory(NamedTuple):
    used: int  # bytes, without file cache that the kernel drops before it kills
    limit: int


def container_memory(root: Path = ROOT) -> ContainerMemory | None:
    """None outside of a container, or in one without a limit."""
    for usage, limit, statistics, cache in FILES:
        try:
            used = int((root / usage).read_text())
            dropped = dict(map(str.split, (root / statistics).read_text().splitlines()))[cache]
            return ContainerMemory(used - int(dropped), int((root / limit).read_text()))
        except (OSError, ValueError, KeyError):  # "max" is no number
            continue
    return None
