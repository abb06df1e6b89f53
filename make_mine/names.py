"""The name of the service, its title and its version, wherever they stand."""

import re
from pathlib import Path

from make_mine.checkout import Files
from make_mine.errors import Refused

MAX_NAME = 40  # with what is added to it, such as _restored, it has to fit into 64 characters
MAX_TITLE = 60

# MariaDB would want quotes around these, and YAML would read some as true or false.
RESERVED = Path(__file__).with_name("reserved.txt").read_text().split()
# Databases and accounts that there are already.
TAKEN = (
    *("mariadb", "mysql", "information_schema", "performance_schema", "sys", "test"),
    *("backup", "observe", "root"),
)

CHANGELOG = """\
# Changelog

What changes for those who run the service or build on it.

## Unreleased

The first version of {title}.
"""


def check_name(name: str) -> None:
    if not name:
        raise Refused("NAME is empty: write make mine NAME=orders")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > MAX_NAME:
        raise Refused(
            f"NAME={name}: write a lower-case letter, then lower-case letters, digits and _, "
            f"{MAX_NAME} at most: it names the database, the image and the cache's keys"
        )
    if name in RESERVED:
        raise Refused(f"NAME={name}: is a word of SQL or YAML; choose another, such as {name}_api")
    if name in TAKEN:
        raise Refused(f"NAME={name}: is the name of a database or of an account of the servers")


def title_of(name: str) -> str:
    return name.replace("_", " ").capitalize()


def check_title(title: str) -> None:
    if not re.fullmatch(r"[^\W_](?:[\w &'-]*[^\W_])?", title) or len(title) > MAX_TITLE:
        raise Refused(
            f"TITLE={title}: write letters, digits, spaces and &'-, {MAX_TITLE} characters at "
            "most: it is the title of the API, and the sender's name of mail"
        )


def rename(files: Files, name: str, title: str) -> None:
    about = files["app/about.py"]
    [old] = re.findall(r'^NAME = "(\w+)"', about, re.MULTILINE)
    about = re.sub(r'^NAME = "\w+"', f'NAME = "{name}"', about, flags=re.MULTILINE)
    about = re.sub(r'^VERSION = ".*"', 'VERSION = "0.1.0"', about, flags=re.MULTILINE)
    if title != name.capitalize():
        about = re.sub(r"^TITLE = .*", f'TITLE = "{title}"', about, flags=re.MULTILINE)
    for path, text in files.items():
        # As a word, or before an underscore, as in the names of schemas and volumes.
        text = re.sub(rf"\b{old}(?=\b|_)", name, text)
        files[path] = re.sub(rf"\b{old.capitalize()}\b", title, text)
    files["app/about.py"] = about
    files["CHANGELOG.md"] = CHANGELOG.format(title=title)
    project = files["pyproject.toml"]
    for key, value in {
        "name": name.replace("_", "-"),
        "version": "0.1.0",
        "description": f"{title}, a FastAPI service",
    }.items():
        project = re.sub(rf'(?m)^{key} = ".*"$', f'{key} = "{value}"', project, count=1)
    files["pyproject.toml"] = project
    files["README.md"] = re.sub(r"\A# .*", f"# {title}", files["README.md"])
