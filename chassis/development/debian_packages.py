"""Programs out of Debian packages, unpacked into a folder: nothing is installed, no root needed."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from chassis.development.server_process import run

_run = partial(run, timeout=900)


def unpack(packages: Sequence[str], into: Path, say: Callable[[str], None]) -> None:
    """Unpack `packages`, and those of their dependencies that the system lacks, as `into`.

    `into` is renamed into place: after an interrupted download there is none.
    Raises OSError or subprocess.SubprocessError.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix="unpacking-") as temporary:
        root = Path(temporary, "root")
        for archive in _download(packages, Path(temporary), say):
            _run("dpkg-deb", "--extract", archive, root)
        root.rename(into)


def library_path(root: Path) -> str:
    return os.pathsep.join(map(str, [*root.glob("usr/lib/*-linux-*"), *root.glob("lib/*-linux-*")]))


def _download(packages: Sequence[str], folder: Path, say: Callable[[str], None]) -> list[Path]:
    options = _apt_options(folder)
    try:
        _run("apt-get", *options, "update")
    except subprocess.CalledProcessError:
        # One broken source fails it; whether the others suffice shows below.
        if not any((folder / "lists").glob("*_Packages*")):
            raise

    # Without --reinstall apt leaves out what is installed, even where it is not on the PATH.
    install = ["apt-get", *options, "install", "--yes", "--reinstall", "--no-install-recommends"]
    uris = _run(*install, "--print-uris", *packages)
    size = sum(int(line.split()[2]) for line in uris.splitlines() if line.startswith("'"))
    say(f"Downloading {', '.join(packages)} and what they need ({size / 1e6:.0f} MB) ...")
    _run(*install, "--download-only", *packages)
    return list((folder / "archives").glob("*.deb"))


def _apt_options(folder: Path) -> list[str]:
    """With its own lists, archives and locks; it reads the sources and status of the system."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    options = {
        "Dir::State": folder,
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder,
        # The lock of dpkg needs root, and nothing is installed that it could protect.
        "Debug::NoLocking": "true",
        # As root, apt downloads as the user _apt, who may not write here.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",
    }
    return [f"--option={name}={value}" for name, value in options.items()]
