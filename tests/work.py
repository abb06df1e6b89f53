"""What tests have done in processes of their own."""

import os
import time
from pathlib import Path


def pid() -> int:
    return os.getpid()


def fail() -> None:
    raise ValueError("It cannot be done")


def hang(begun: str) -> None:
    """Says so in a file, which holds the number of its process."""
    Path(begun).write_text(str(os.getpid()))
    time.sleep(600)


def take(megabytes: int) -> int:
    return len(bytearray(megabytes << 20))
