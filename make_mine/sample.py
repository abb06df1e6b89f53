"""What belongs to the sample, and its removal."""

import re
from fnmatch import fnmatch

from make_mine.checkout import Files
from make_mine.errors import Refused
from make_mine.marks import without
from make_mine.requirements import drop_unused

LAYERS = {
    "models": ("author", "book", "cover", "full_text", "review"),
    "schemas": (
        *("author", "book", "cover", "dashboard", "offer", "ranking", "review"),
        "search_job",
    ),
    "services": (
        *("authors", "books", "covers", "dashboard", "offers", "rankings", "reviews"),
        *("book_pages", "book_queries", "book_search", "cache_tags", "search_index"),
        "review_deletion",
    ),
    "routers": ("authors", "books", "covers", "dashboard", "offers", "rankings", "reviews"),
    "development": ("catalogue", "demo_sellers", "sample_commands"),
}
FILES = (
    *(f"app/{layer}/{name}.py" for layer, names in LAYERS.items() for name in names),
    "app/sample/*",
    "data/*",
    "benchmarks/growth/*",
    "benchmarks/load/*",
    "benchmarks/results/*",
    "benchmarks/scaling/*",
    "docs/decisions/0017-tags-of-sets-of-books.md",
    "docs/decisions/0022-hot-reads.md",
    "docs/decisions/0025-walks-before-the-full-text-index.md",
    "docs/images/*",
    "docs/load-testing.md",
    "docs/openapi.json",  # of the sample; a service publishes its own
    "docs/performance.md",
    "docs/profile.svg",
    "migrations/versions/0003_sample.py",
    "requirements-load.*",
    "tests/clients/*/authors.*",
    "tests/project/test_benchmarks.py",
)
# Too many for a list: of these, those that name the sample belong to it.
BY_CONTENT = ("tests/app/", "benchmarks/")
# Not the book of Google about reliability, to which comments refer.
NAMES = re.compile(
    r"(?<![a-z])(?<!sre-)(?:book|author|seller)s?(?![a-z])|(?<![a-z])isbn(?![a-z])|goodbooks"
    r"|/v1/rankings",
    re.IGNORECASE,
)
# What benchmarks read that are of something else, and what they read instead.
READ_INSTEAD = {
    '"/v1/books/7"': '"/v1/notes"',
    '"/v1/books?limit=20"': '"/v1/notes?limit=20"',
}
SETTINGS = ("RANKINGS_", "OFFERS_", "COVERS_")
SUMMARY = 'SUMMARY = "Accounts and notes."'


def remove_sample(files: Files) -> None:
    for path in [*files]:
        if any(fnmatch(path, pattern) for pattern in FILES):
            del files[path]
    for path, text in files.items():
        try:
            files[path] = without("sample", text)
        except Refused as error:
            raise Refused(f"{path}, {error}") from None
    _remove_by_content(files)
    _remove_targets(files)
    _remove_links(files)
    files["docs/settings.md"] = "".join(
        line
        for line in files["docs/settings.md"].splitlines(keepends=True)
        if not line.startswith(tuple(f"| `{group}" for group in SETTINGS))
    )
    about = files["app/about.py"]
    files["app/about.py"] = re.sub(r"^SUMMARY = .*", SUMMARY, about, flags=re.MULTILINE)
    drop_unused("pillow", "PIL", files)


def names_sample(text: str) -> bool:
    return NAMES.search(text) is not None


def _remove_by_content(files: Files) -> None:
    """Modules that name the sample, and those that import them."""
    modules = [path for path in files if path.startswith(BY_CONTENT) and path.endswith(".py")]
    for path in modules:
        if path.startswith("benchmarks/"):
            for read, instead in READ_INSTEAD.items():
                files[path] = files[path].replace(read, instead)
    gone = {path for path in modules if names_sample(files[path])}
    while True:
        names = "|".join(re.escape(path[:-3].replace("/", ".")) for path in gone)
        imports = re.compile(rf"^(?:from|import) (?:{names or '-'})\b", re.MULTILINE)
        more = {path for path in modules if path not in gone and imports.search(files[path])}
        if not more:
            break
        gone |= more
    for path in gone:
        del files[path]


def _remove_targets(files: Files) -> None:
    """From the Makefile, those of benchmarks that are gone."""
    text = files["Makefile"]
    for target, module in re.findall(
        r"^([a-z-]+):.*\n\t@\$\(BIN\)/python -m benchmarks\.([\w.]+)$", text, re.MULTILINE
    ):
        path = f"benchmarks/{module.replace('.', '/')}"
        if f"{path}.py" not in files and f"{path}/__main__.py" not in files:
            text = re.sub(rf"^{target}:.*\n\t.*\n\n", "", text, flags=re.MULTILINE)
            text = re.sub(rf"(?<=[ \t]){target}(?=\s) ?", "", text)
    files["Makefile"] = text.replace(" requirements-load", "")


def _remove_links(files: Files) -> None:
    """From the guarantees, to tests that are gone; what has no other test needs a mark."""
    path = "docs/guarantees.md"

    def kept(link: re.Match[str]) -> str:
        return link[0] if link[1] in files else ""

    text = re.sub(r"\[`\w+`\]\(\.\./(tests/[\w./]+)\)", kept, files[path])
    text = re.sub(r"(?<=\| )(?:<br>)+|(?:<br>)+(?= \|)", "", text)
    files[path] = re.sub(r"(?:<br>){2,}", "<br>", text)
