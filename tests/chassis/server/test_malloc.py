"""Memory of large blocks that are freed, in a process of its own."""

import subprocess
import sys

import pytest

# Small blocks that stay lie between large ones that go. The first large one that is freed is what
# makes glibc take later ones from the heap.
PROGRAM = """
import sys
from chassis.server.malloc import map_large_blocks
from chassis.server.monitor import resident_memory

if sys.argv[1] == "yes":
    map_large_blocks()
large = bytearray(262_144)
del large
before, large, small = resident_memory(), [], []
for size in range(20_000, 20_100):
    large.append(bytearray(262_144))
    small.append(bytes(size))
del large
print(resident_memory() - before)
"""


@pytest.mark.parametrize(("mapped", "is_kept"), [("yes", False), ("no", True)])
@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_buffers_go_back_to_the_system(mapped: str, is_kept: bool):
    command = [sys.executable, "-c", PROGRAM, mapped]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert (int(output) > 10 * 2**20) == is_kept
