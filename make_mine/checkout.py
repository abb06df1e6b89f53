"""The files of a git checkout, read and written as a whole."""

import subprocess
from pathlib import Path

from make_mine.errors import Refused

Files = dict[str, str]  # the text of each, by its path


class Checkout:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.before: Files = {}

    def require_clean(self) -> None:
        """So that what it changes can be reviewed, and taken back. Raises Refused."""
        try:
            changes = self._git("status", "--porcelain", "--", ".").rstrip()
            self._git("rev-parse", "HEAD")
        except FileNotFoundError:
            raise Refused("git is not installed, and keeps what was there before") from None
        except subprocess.CalledProcessError:
            raise Refused(
                "This is no git checkout with a commit, which would keep what was there before. "
                "Run: git init && git add --all && git commit -m 'Start from the template'"
            ) from None
        if changes:
            raise Refused(
                "There are changes that are not committed:\n"
                f"{changes}\nRun: git stash --include-untracked, or commit them"
            )

    def read(self) -> Files:
        """Without those that are no text."""
        for path in self._git("ls-files", "-z").split("\0"):
            file = self.root / path
            if path and file.is_file() and not file.is_symlink():
                try:
                    self.before[path] = file.read_text("utf-8")
                except UnicodeDecodeError:
                    continue
        return dict(self.before)

    def write(self, files: Files) -> None:
        for path in self.before.keys() - files.keys():
            (self.root / path).unlink()
            self._remove_empty((self.root / path).parent)
        for path, text in files.items():
            if text != self.before.get(path):
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).write_text(text, "utf-8")

    def _remove_empty(self, folder: Path) -> None:
        """And what imports have left there."""
        others = [path for path in folder.rglob("*") if path.suffix != ".pyc" and path.is_file()]
        if others or folder == self.root:
            return
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
        self._remove_empty(folder.parent)

    def _git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ).stdout
