"""One rule for all text: what is kept, what is made one, and what is refused."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import unicodedata2
from sqlalchemy import select

from app.models import User
from chassis.resources import Resources
from chassis.text.normal_form import clean_line, clean_lines
from tests.command import finish, run, start
from tests.databases import sqlite_only
from tests.editor import Editor
from tests.shop import Shop

PASSED = {
    "zero width non-joiner": "\u0627\u0633\u0645\u0627\u0639\u06cc\u0644\u200c\u0632\u0627\u062f",
    "zero width joiner": "fine \U0001f469\u200d\U0001f467",
    "flag of tags": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "marks of direction": "\u200f\u05d0\u200e \u061cb",
    "embedding and isolates": "\u202aa\u202c \u2067b\u2069",
    "soft hyphen": "Donau\u00addampfschiff",
    "variation selectors": "\u2764\ufe0f \u845b\U000e0100",
    "private use": "\ue000 \U0010fffd",
    "unassigned": "\U0003fffd",
    "newer than all interpreters": "\U00010940",
    "zero width space": "a\u200bb",
}
ONE_LINE = {
    "decomposed": ("Jose\u0301", "Jos\u00e9"),
    "order of marks": ("a\u0301\u0323", "\u1ea1\u0301"),
    "hangul": ("\u1112\u1161\u11ab", "\ud55c"),
    "spaces within": ("a  \u00a0\u3000\u2009b", "a b"),
    "white space at the ends": (" \t\u00a0\r\na\u3000\u2028\x85", "a"),
    # Composed since Unicode 16, which few interpreters know.
    "newer composition": ("\U000105d2\u0307", "\U000105c9"),
}
REFUSED = {
    "NUL": ("a\0b", "the control character U+0000 at position 2"),
    "bell": ("ab\x07", "the control character U+0007 at position 3"),
    "delete": ("\x7f", "the control character U+007F at position 1"),
    "C1": ("  a\x9b", "the control character U+009B at position 4"),
    "separator": ("a\x1c", "the control character U+001C at position 2"),
    "form feed": ("a\fb", "the control character U+000C at position 2"),
    "surrogate": ("\U0001f600\ud83d", "the lone surrogate U+D83D at position 2"),
    "override": ("exe.\u202egnp", "the direction override U+202E at position 5"),
    "other override": ("\u202da", "the direction override U+202D at position 1"),
}
BROKEN_LINES = {
    "line feed": "a\nb",
    "carriage return": "a\rb",
    "both": "a\r\nb",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
}
NOTHING = ["", "   ", "\u00a0\u3000", "\t\n", "\u200d", "\u00ad \u2060", "\u3164", "\ufe0f"]

each_rule = pytest.mark.parametrize("clean", [clean_line, clean_lines])


@each_rule
@pytest.mark.parametrize("text", PASSED.values(), ids=PASSED)
def test_text_of_any_script_passes_as_it_is(clean: Callable[[str], str], text: str):
    assert clean(text) == text


@each_rule
@pytest.mark.parametrize(("text", "normal"), ONE_LINE.values(), ids=ONE_LINE)
def test_forms_of_one_text_become_one(clean: Callable[[str], str], text: str, normal: str):
    assert clean(text) == normal
    assert clean(normal) == normal


@each_rule
@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_character_is_named_with_its_place(
    clean: Callable[[str], str], text: str, reason: str
):
    with pytest.raises(ValueError, match=reason.replace("+", r"\+")):
        clean(text)


@pytest.mark.parametrize("text", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_line_breaks_are_kept_where_lines_are(text: str):
    assert clean_lines(text) == "a\nb"
    with pytest.raises(ValueError, match=r"the line break U\+[0-9A-F]{4} at position 2"):
        clean_line(text)


def test_lines_lose_spaces_that_cannot_be_seen():
    assert clean_lines(" \n one \t two \r\n\r\n  three\u00a0\n ") == "one two\n\n three"


def test_tab_within_a_line_is_a_control_character():
    with pytest.raises(ValueError, match=r"the control character U\+0009 at position 2"):
        clean_line("a\tb")


@each_rule
@pytest.mark.parametrize("text", NOTHING)
def test_text_that_cannot_be_seen_is_empty(clean: Callable[[str], str], text: str):
    assert clean(text) == ""


def test_normal_form_does_not_depend_on_the_interpreter():
    """Its own tables are older than those of the library."""
    newer = [char for char in map(chr, range(0x110000)) if unicodedata.category(char) == "Cn"]
    assert any(unicodedata2.category(char) != "Cn" for char in newer)

    for char in newer:
        if not "\ufdd0" <= char <= "\ufdef" and unicodedata2.normalize("NFC", char) == char:
            assert clean_line(f"x{char}") == f"x{char}"


async def test_every_field_of_the_api_takes_text_and_refuses_the_rest(
    shop: Shop, resources: Resources
):
    purchase = await shop.add_purchase("Something")
    path = f"/v1/purchases/{purchase['id']}"
    fields = [
        (f"/v1/payers/{await shop.add_payer()}", "name"),
        (path, "note"),
        (path, "greeting"),
        ("/v1/users/me", "name"),
    ]
    await takes_text(shop, fields)


async def takes_text(
    editor: Editor, fields: list[tuple[str, str]], lines: str = "greeting"
) -> None:
    """`lines`: the field that may have several."""
    for path, field in fields:

        async def change(text: str, path: str = path, field: str = field) -> httpx.Response:
            # In ASCII, as a lone surrogate has no other form.
            body = json.dumps({field: text})
            headers = editor.editor | {"Content-Type": "application/json"}
            return await editor.client.patch(path, content=body, headers=headers)

        for text in PASSED.values():
            response = await change(text)
            assert (response.status_code, response.json().get(field)) == (200, text)
        for text, normal in ONE_LINE.values():
            response = await change(text)
            assert (response.status_code, response.json().get(field)) == (200, normal)
        for text, reason in REFUSED.values():
            response = await change(text)
            assert response.status_code == 422
            # What reads the body may refuse a lone surrogate before the field is known.
            assert "surrogate" in reason or f"{field}: " in response.json()["detail"]
            assert "surrogate" in reason or f"holds {reason}" in response.json()["detail"]
        for text in BROKEN_LINES.values():
            response = await change(text)
            assert response.status_code == (200 if field == lines else 422)
            assert response.json().get(lines) in ("a\nb", None)
        for text in NOTHING:
            response = await change(text)
            assert (response.status_code, "at least 1 character" in response.text) == (422, True)


@pytest.mark.parametrize(("path", "limit"), [("payers", 300), ("purchases", 500), ("users", 100)])
async def test_limits_count_the_normal_form(shop: Shop, path: str, limit: int):
    purchase = await shop.add_purchase("Something")
    url, field = {
        "payers": (f"/v1/payers/{await shop.add_payer()}", "name"),
        "purchases": (f"/v1/purchases/{purchase['id']}", "note"),
        "users": ("/v1/users/me", "name"),
    }[path]
    await counts_the_normal_form(shop, url, field, limit)


async def counts_the_normal_form(editor: Editor, url: str, field: str, limit: int) -> None:
    fits = await editor.change(url, **{field: "e\u0301" * limit})
    too_long = await editor.change(url, **{field: "x" * (limit + 1)})
    spaces = await editor.change(url, **{field: "x" + " " * 900_000 + "x"})

    assert (fits.status_code, fits.json()[field]) == (200, "é" * limit)
    assert (too_long.status_code, spaces.status_code) == (422, 422)
    for response in (too_long, spaces):
        assert f"at most {limit} characters" in response.json()["detail"]


@pytest.mark.parametrize("note", ["%00", "a%00b", "%ED%A0%80%00", "%E2%80%AE", "a%0Ab", "x" * 501])
async def test_query_is_text_as_well(client: httpx.AsyncClient, note: str):
    response = await client.get(f"/v1/purchases?note={note}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", "note"]


@sqlite_only
async def test_names_of_the_command_line_are_text_as_well(
    environment: dict[str, Any], resources: Resources, tmp_path: Path
):
    password = "a long password\n"

    def create(name: str) -> tuple[int, str, str]:
        arguments = ("create-user", "a@example.com", "--name", name)
        return run(tmp_path, *arguments, text=password, **environment)

    bell, blank, good = map(create, ("a\x07", "\u200d", "Jose\u0301  X"))
    # As the interpreter decodes it: a byte that is not UTF-8.
    raw = start(tmp_path, "create-user", "b@example.com", "--name", "a\udce4", **environment)
    surrogate = finish(raw, password)

    assert [code for code, _, _ in (bell, surrogate, blank, good)] == [1, 1, 1, 0]
    assert bell[2].endswith("holds the control character U+0007 at position 2\n")
    assert surrogate[2].endswith("holds the lone surrogate U+DCE4 at position 2\n")
    assert "at least 1 character" in blank[2]
    async with resources["sessions"].read() as session:
        assert list(await session.scalars(select(User.name))) == ["Jos\u00e9 X"]
