import pytest

from app.isbn import is_isbn13, isbn13_of_isbn10


@pytest.mark.parametrize(
    ("isbn10", "isbn13"),
    [
        ("0141439513", "9780141439518"),
        ("141439513", "9780141439518"),  # a spreadsheet took the zero for a number's
        ("14143984X", "9780141439846"),
        ("14143984x", "9780141439846"),
        (" 141439513 ", "9780141439518"),
        ("3150000017", "9783150000014"),
        ("19", "9780000000019"),
        ("0141439514", None),
        ("141439840", None),
        ("X141439513", None),
        ("9780141439518", None),
        ("014143951²", None),
        ("०१४१४३९५१३", None),
        ("not a number", None),
        ("0", None),
        ("", None),
    ],
)
def test_isbn13_of_an_isbn10(isbn10: str, isbn13: str | None):
    assert isbn13_of_isbn10(isbn10) == isbn13


@pytest.mark.parametrize("number", range(1, 1000, 37))
def test_isbn13_that_is_made_is_one(number: int):
    made = [isbn13_of_isbn10(f"{number}{check}") for check in "0123456789X"]

    assert [is_isbn13(isbn13) for isbn13 in made if isbn13] == [True]


@pytest.mark.parametrize(
    "digits",
    ["", "9780141439519", "978014143951", "97801414395180", "978-0141439518", "978014143951²"],
)
def test_what_is_no_isbn13(digits: str):
    assert not is_isbn13(digits)
