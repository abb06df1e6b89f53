"""The template as `make mine` makes a service of it, with the answers that the service gave."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from chassis.development.upgrade.trees import File, Tree, UpgradeError, write

PROGRAM = "make_mine/__main__.py"
WHO = ("-c", "user.name=upgrade", "-c", "user.email=upgrade@example.com")


def was_made(base: Tree, ours: Tree) -> bool:
    """`make mine` removes itself."""
    return PROGRAM in base and PROGRAM not in ours


def as_made(tree: Tree, about: str, *, sample: bool) -> Tree:
    """`about`: app/about.py of the service, which has its name and title."""
    if PROGRAM not in tree:
        return tree
    name, title = (
        found[1] if (found := re.search(rf'^{one} = "(.+?)"', about, re.MULTILINE)) else ""
        for one in ("NAME", "TITLE")
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(tree, root)
        # It wants a clean checkout.
        for arguments in (
            ["init"],
            ["add", "--all", "--force"],
            ["commit", "--message", "As it is"],
        ):
            _run(root, "git", *WHO, "-c", "commit.gpgsign=false", *arguments)
        options = ["--title", title, "--sample", "yes" if sample else "no"]
        _run(root, sys.executable, "-m", "make_mine", name, *options)
        return {
            str(path.relative_to(root)): File(path.read_bytes(), os.access(path, os.X_OK))
            for path in root.rglob("*")
            if path.is_file() and path.relative_to(root).parts[0] != ".git"
        }


def _run(folder: Path, *command: str) -> None:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(command[1:4])
        raise UpgradeError(f"The template cannot be made like this service: {words}: {done.stderr}")
