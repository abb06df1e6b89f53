import argparse
import sys
from pathlib import Path

from make_mine.checkout import Checkout
from make_mine.errors import Refused
from make_mine.marks import without
from make_mine.names import check_name, check_title, rename, title_of
from make_mine.notes import add_notes
from make_mine.sample import remove_sample

OWN = ("make_mine/", "tests/project/test_make_mine")


def main() -> None:
    parser = argparse.ArgumentParser("make mine")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--title", default="")
    parser.add_argument("--sample", default="")
    arguments = parser.parse_args()
    try:
        print(run(Path.cwd(), arguments.name, arguments.title, arguments.sample or "yes"))
    except Refused as error:
        print(f"{error}; nothing was changed", file=sys.stderr)
        raise SystemExit(1) from None


def run(root: Path, name: str, title: str, sample: str) -> str:
    """What to do next. Raises Refused, having changed nothing."""
    check_name(name)
    title = title or title_of(name)
    check_title(title)
    if sample not in ("yes", "no"):
        raise Refused(f"SAMPLE={sample}: write SAMPLE=no to remove the sample, else SAMPLE=yes")
    checkout = Checkout(root)
    checkout.require_clean()
    files = checkout.read()
    if sample == "no":
        remove_sample(files)
        add_notes(files)
    for path in [path for path in files if path.startswith(OWN)]:
        del files[path]
    for path, text in files.items():
        files[path] = without("mine", text)
    rename(files, name, title)
    checkout.write(files)
    return next_steps(name, title, has_var=(root / "var").exists())


def next_steps(name: str, title: str, *, has_var: bool) -> str:
    lines = [
        f"The service is called {name}, its API: {title}. Nothing is committed yet. Next:",
        "",
        *["  rm -r var                       the old data; end make run first"] * has_var,
        "  make run                        the service on http://127.0.0.1:8000",
        "  git status && git diff          what has changed",
        "  make format lint test           whether it holds; takes some minutes",
        "  git add --all && git commit     keep it, or take it back:",
        "  git reset --hard && git clean -d --force",
        "  make resource NAME=...          the first resource of your own",
        "",
        "docs/make-it-yours.md goes on from here. Yours to change by hand: LICENSE, SECURITY.md,",
        "and the first lines of README.md.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
