"""ISBN-10 and ISBN-13 (ISO 2108), as people and spreadsheets write them."""

from decimal import Decimal

import regex

from chassis.text.email_address import WIDTHS

_PREFIX = regex.compile(r"(?:urn:)?isbn(?:[\p{Pd} ]?1[03](?=[:\s]))?[:\s]*", regex.IGNORECASE)
_SEPARATORS = regex.compile(r"[\p{Pd}\s\u2212]")
_INVISIBLE = regex.compile(r"\p{Cf}")  # direction marks, which shops' pages have around an ISBN
_ISBN10 = regex.compile(r"[0-9]{9}[0-9X]")
_ISBN13 = regex.compile(r"97[89][0-9]{10}")
_FORMS = "it has 13 digits, the first 978 or 979, or 10, the last of which may be X"
_SHORT = regex.compile(r"[0-9]{1,8}[0-9X]")
_EXPONENT = regex.compile(r"[0-9][.,][0-9]{1,20}e\+?[0-9]{1,2}", regex.IGNORECASE)


class LostDigits(ValueError):
    pass


def parse_isbn(text: str) -> str:
    """The 13 digits of an ISBN, with or without hyphens and spaces. Raises ValueError."""
    digits: str = _SEPARATORS.sub("", _PREFIX.sub("", _visible(text), count=1)).upper()
    if _ISBN10.fullmatch(digits):
        return _of_isbn10(digits)
    if not _ISBN13.fullmatch(digits):
        raise ValueError(f"is not an ISBN: {_FORMS}")
    if _weigh(digits):
        raise ValueError("is not an ISBN: its check digit is wrong")
    return digits


def parse_isbn_cell(cell: str) -> str | None:
    """The same of a cell that a spreadsheet may have converted to a number; None if it is empty.

    Raises LostDigits where only the first digits are left, as in 9.78044E+12.
    """
    text = _visible(cell).removeprefix("=").strip("\"' \t\u00a0").removesuffix(".0")
    if _EXPONENT.fullmatch(text):
        text = _plain_digits(text)
    if _SHORT.fullmatch(short := _SEPARATORS.sub("", text).upper()):
        text = short.zfill(10)  # a number has no leading zeros
    return parse_isbn(text) if text else None


def _visible(text: str) -> str:
    """With ASCII for the wide digits and letters of East Asian input methods."""
    visible: str = _INVISIBLE.sub("", text.translate(WIDTHS))
    return visible.strip()


def _plain_digits(number: str) -> str:
    value = Decimal(number.replace(",", "."))
    if int(value.as_tuple().exponent) > 0:
        raise LostDigits("has lost its last digits, being a number; format the column as text")
    return str(int(value))


def _of_isbn10(isbn10: str) -> str:
    body, check = isbn10[:-1], isbn10[-1]
    total = sum(weight * int(digit) for weight, digit in zip(range(10, 1, -1), body, strict=True))
    if "0123456789X"[-total % 11] != check or not int(body):
        raise ValueError("is not an ISBN: its check digit is wrong")
    return (isbn13 := f"978{body}") + str(-_weigh(isbn13) % 10)


def _weigh(digits: str) -> int:
    return sum(int(digit) * (1, 3)[position % 2] for position, digit in enumerate(digits)) % 10
