"""The lines of a resource in the files that wire it, put in or taken out."""

import re
from collections.abc import Callable
from pathlib import Path

from app.development.make_resource.fields import ResourceError, camel
from app.development.make_resource.render import Resource

Edit = Callable[[str], str]
MODEL = r"from app\.models\..*"
LAST_TAG = r".+(?=\n    # Of each service\.)"
SERVICE = r"from app\.services\..*"
IMPORTS = r"from chassis\.http\.dependencies import (\([^)]*\)|[^(\n]*)"


def wire(root: Path, resource: Resource, *, remove: bool = False) -> dict[Path, str]:
    """The new content of each file. Raises ResourceError if one is not as it is expected."""
    single, plural = resource.single, resource.plural
    service = f"{camel(single)}Service"
    line = f"{camel(plural)} = Annotated[{service}, Depends(on_session({service}))]"
    edits: dict[str, list[Edit]] = {
        "app/about.py": [_tag(resource, remove)],
        "app/models/__init__.py": [
            _line(f"from app.models.{single} import {camel(single)}", MODEL, remove)
        ],
        "app/dependencies.py": [
            _line(f"from app.services.{plural} import {service}", SERVICE, remove),
            _line(line, r"\w+ = Annotated\[.*", remove),
            *([] if remove else [_word(IMPORTS, "on_session", remove)]),  # ruff removes doubles
        ],
        "app/main.py": [
            _word(r"from app\.routers import (\([^)]*\)|[^(\n]*)", plural, remove),
            _word(r" +modules = (\[[^\]]*\])", plural, remove),
        ],
        "benchmarks/schemathesis.toml": [
            _word(r"include-operation-id = (\[[^\]]*\])", f'"get_{plural}"', remove)
        ],
    }
    written = {}
    for name, changes in edits.items():
        text = (root / name).read_text()
        for change in changes:
            try:
                text = change(text)
            except LookupError as error:
                raise ResourceError(f"{name}: {error.args[0]}") from None
        written[root / name] = text
    return written


def _tag(resource: Resource, remove: bool) -> Edit:
    """Removed whatever its description has become."""
    start = f'    "{resource.tag}":'
    if remove:
        return lambda text: re.sub(rf"^{start}.*\n", "", text, count=1, flags=re.MULTILINE)
    owned, public = "Those of your own account", "Anyone may read them, editors may change them"
    return _line(f'{start} "{owned if resource.is_owned else public}",', LAST_TAG, remove)


def _line(line: str, after: str, remove: bool) -> Edit:
    """After the last line that matches `after`."""

    def edit(text: str) -> str:
        if remove:
            return text.replace(f"{line}\n", "", 1)
        *_, last = _matches(rf"^{after}$", text)
        return f"{text[: last.end()]}\n{line}{text[last.end() :]}"

    return edit


def _word(pattern: str, word: str, remove: bool) -> Edit:
    """At the end of the list that is the group of `pattern`, in brackets or without."""

    def edit(text: str) -> str:
        [found, *_] = _matches(rf"^{pattern}$", text)
        has_brackets = found[1][0] in "(["
        inside = found[1][1:-1] if has_brackets else found[1]
        words = [one.strip() for one in inside.split(",") if one.strip()]
        words = [one for one in words if one != word] if remove else [*words, word]
        if words and inside.rstrip().endswith(","):  # a line for each
            words[-1] += ","
        new = ", ".join(words)
        if has_brackets:
            new = f"{found[1][0]}{new}{found[1][-1]}"
        return f"{text[: found.start(1)]}{new}{text[found.end(1) :]}"

    return edit


def _matches(pattern: str, text: str) -> list[re.Match[str]]:
    found = [*re.finditer(pattern, text, re.MULTILINE)]
    if not found:
        raise LookupError(f"There is no line such as {pattern}; nothing was written")
    return found
