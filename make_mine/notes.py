"""The resource that is left as a pattern: what `make resource NAME=note` writes."""

from pathlib import Path

from make_mine.checkout import Files
from make_mine.errors import Refused

FOLDER = Path(__file__).parent / "notes"
LOOK_AROUND = Path(__file__).with_name("look_around.md").read_text("utf-8")
WIRING = {
    "README.md": {"## Look around\n": LOOK_AROUND},
    "app/about.py": {
        "TAGS = {\n": 'TAGS = {\n    "notes": "Anyone may read them, editors may change them",\n',
    },
    "app/models/__init__.py": {
        "from app.models.one_time_token": "from app.models.note import Note\n"
        "from app.models.one_time_token",
    },
    "app/dependencies.py": {
        "UserService\n": "UserService\nfrom app.services.notes import NoteService\n",
        "import on_resources\n": "import on_resources, on_session\n",
        "Depends(on_resources(SessionService))]\n": "Depends(on_resources(SessionService))]\n"
        "Notes = Annotated[NoteService, Depends(on_session(NoteService))]\n",
    },
    "app/main.py": {
        "    mailed,\n    sessions,\n": "    mailed,\n    notes,\n    sessions,\n",
        "        audit,\n    ]\n": "        audit,\n        notes,\n    ]\n",
    },
    "benchmarks/schemathesis.toml": {'"get_audit_events"]': '"get_audit_events", "get_notes"]'},
}


def add_notes(files: Files) -> None:
    for path in (each for each in FOLDER.rglob("*") if each.suffix in (".py", ".json")):
        files[path.relative_to(FOLDER).as_posix()] = path.read_text("utf-8")
    for name, edits in WIRING.items():
        for old, new in edits.items():
            if files[name].count(old) != 1:
                raise Refused(f"{name} has no place for notes: {old!r} should stand there once")
            files[name] = files[name].replace(old, new)
