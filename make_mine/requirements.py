"""Packages that nothing imports any more."""

import re

from make_mine.checkout import Files

DEVELOPMENT = "requirements-dev"


def drop_unused(package: str, module: str, files: Files) -> None:
    """From production; from development, too, unless a test imports it."""
    imports = re.compile(rf"^\s*(?:from|import) {module}\b", re.MULTILINE)
    in_use = [path for path in files if path.endswith(".py") and imports.search(files[path])]
    if any(path.startswith(("app/", "chassis/")) for path in in_use):
        return
    line = re.compile(rf"^{package}\b.*\n", re.MULTILINE)
    pin = re.compile(rf"^{package}==.*\n(?:    .*\n)*", re.MULTILINE)
    for path in [path for path in files if re.fullmatch(r"requirements.*\.(in|lock)", path)]:
        name, _, kind = path.rpartition(".")
        if kind == "in":
            files[path] = line.sub("", files[path])
        elif name != DEVELOPMENT or not in_use:
            files[path] = pin.sub("", files[path])
    if in_use:
        development = f"{DEVELOPMENT}.in"
        files[development] = _with_line(files[development], package)


def _with_line(text: str, package: str) -> str:
    """In its place in the alphabet, after the files that are included."""
    lines = text.splitlines()
    later = (number for number, each in enumerate(lines) if each[:1].isalpha() and each > package)
    lines.insert(next(later, len(lines)), package)
    return "".join(f"{each}\n" for each in lines)
