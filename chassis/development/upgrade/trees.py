"""The files of commits, read from git; and the commit of the template that a service began with."""

import re
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

VERSION_FILE = "chassis/version.py"


class UpgradeError(Exception):
    """What prevents the upgrade, and what to do about it; nothing was changed."""


@dataclass(frozen=True)
class File:
    content: bytes
    executable: bool = False


Tree = dict[str, File]


def write(files: Tree, root: Path) -> None:
    for path, file in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(0o755 if file.executable else 0o644)


@dataclass(frozen=True)
class Repository:
    folder: Path

    def git(self, *arguments: str) -> bytes:
        """Its output. Raises UpgradeError with git's message."""
        done = subprocess.run(
            ["git", "-c", "core.autocrlf=false", *arguments],
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            message = done.stderr.decode(errors="replace").strip()
            raise UpgradeError(f"git {' '.join(arguments[:2])} failed: {message}")
        return done.stdout

    def commit(self, name: str) -> str:
        """The id of a branch, tag or commit."""
        try:
            return (
                self.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
            )
        except UpgradeError:
            raise UpgradeError(f"The template has no branch, tag or commit {name}") from None

    def tree(self, commit: str) -> Tree:
        archive = BytesIO(self.git("archive", "--format=tar", commit))
        tree: Tree = {}
        with tarfile.open(fileobj=archive) as files:
            for member in files:
                if (content := files.extractfile(member)) is not None:
                    tree[member.name] = File(content.read(), bool(member.mode & 0o100))
        return tree

    def ids(self, commit: str) -> dict[str, str]:
        """The id of the content of each file."""
        listed = self.git("ls-tree", "-r", "-z", commit).decode().split("\0")
        return {line.partition("\t")[2]: line.split()[2] for line in listed if line}


def clone(template: str, folder: Path) -> Repository:
    """All of the template's history; a folder or an address that git understands."""
    source = str(Path(template).resolve()) if Path(template).exists() else template
    try:
        Repository(folder.parent).git("clone", "--quiet", "--bare", source, str(folder))
    except UpgradeError as error:
        raise UpgradeError(
            f"FROM={template} is no git repository that can be read: {error}"
        ) from None
    return Repository(folder)


def version_of(text: str) -> str:
    found = re.search(r'^VERSION = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise UpgradeError(f"{VERSION_FILE} names no version")
    return found[1]
