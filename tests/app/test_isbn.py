import pytest

from app.sample.isbn import LostDigits, parse_isbn, parse_isbn_cell

DUNE = "9780441172719"
WRITTEN = [
    "9780441172719",
    "978-0-441-17271-9",
    "978 0 441 17271 9",
    "978\u20130\u2011441\u2212172719",
    "0441172717",
    "0-441-17271-7",
    "0\u00a0441\u202f17271 7",
    "ISBN 0-441-17271-7",
    "ISBN-13: 978-0-441-17271-9",
    "isbn-10 0441172717",
    "urn:isbn:9780441172719",
    " 9780441172719 ",
    "\u200e978-0441172719\u200f",
    "ISBN-13 \u200f : \u200e 978-0441172719",
    "\ufeff978\u200b0\u2060441172719",
    "ISBN-10\t0\u00ad441\u00ad17271\u00ad7",
    "\uff29\uff33\uff22\uff2e\uff1a\uff19\uff17\uff18\uff0d\uff10441172719",
]
IN_CELLS = [
    *WRITTEN,
    '="0441172717"',
    "'0441172717",
    '"0441172717"',
    "441172717",
    "441-17271-7",
    "441172717.0",
    "9780441172719.0",
    "9.780441172719E+12",
    "9,780441172719e+12",
    "4.41172717E+08",
]
NO_ISBN = [
    "9780441172718",
    "0441172718",
    "1234567890128",  # a good check digit, but no prefix of books
    "978044117271",
    "97804411727199",
    "X441172717",
    "014143951\u00b2",
    "\u0660\u0661\u0664\u0661\u0664\u0663\u0669\u0665\u0661\u0663",
    "0000000000",
    "not a number",
]
LOST = ["9.78044E+12", "9,78044E+12", "9.78044117272e+12", "4.411727E+08", "9.8E+12"]


@pytest.mark.parametrize("text", WRITTEN)
def test_isbn_is_read_in_every_form(text: str):
    assert parse_isbn(text) == DUNE


@pytest.mark.parametrize("text", IN_CELLS)
def test_isbn_is_read_as_spreadsheets_write_it(text: str):
    assert parse_isbn_cell(text) == DUNE


@pytest.mark.parametrize(
    ("isbn10", "isbn13"),
    [
        ("14143984X", "9780141439846"),
        ("14143984x", "9780141439846"),
        ("3150000017", "9783150000014"),
        ("19", "9780000000019"),
    ],
)
def test_zeros_in_front_may_be_lost_in_a_cell(isbn10: str, isbn13: str):
    assert parse_isbn_cell(isbn10) == isbn13


@pytest.mark.parametrize("text", ["", " ", '=""', "'", "\u200e"])
def test_empty_cell_is_no_fault(text: str):
    assert parse_isbn_cell(text) is None


@pytest.mark.parametrize("text", NO_ISBN)
def test_what_is_no_isbn(text: str):
    for parse in (parse_isbn, parse_isbn_cell):
        with pytest.raises(ValueError, match="is not an ISBN: it"):
            parse(text)


@pytest.mark.parametrize("text", LOST)
def test_number_that_has_lost_digits_is_not_guessed(text: str):
    with pytest.raises(LostDigits):
        parse_isbn_cell(text)
    with pytest.raises(ValueError, match="is not an ISBN"):
        parse_isbn(text)


@pytest.mark.parametrize("number", range(1, 1000, 37))
def test_one_check_digit_is_right(number: int):
    made = []
    for check in "0123456789X":
        try:
            made.append(parse_isbn(f"{number:09}{check}"))
        except ValueError:
            continue

    assert len(made) == 1
    assert parse_isbn(made[0]) == made[0]
