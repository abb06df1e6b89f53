"""ISBN check digits (ISO 2108)."""


def is_isbn13(digits: str) -> bool:
    return len(digits) == 13 and digits.isascii() and digits.isdigit() and _weigh(digits) == 0


def isbn13_of_isbn10(isbn10: str) -> str | None:
    """Of an ISBN-10 whose leading zeros may be lost; None if its check digit is wrong."""
    isbn10 = isbn10.strip().upper().zfill(10)
    body, check = isbn10[:-1], isbn10[-1]
    if len(isbn10) != 10 or not (body.isascii() and body.isdigit()) or not int(body):
        return None
    total = sum(weight * int(digit) for weight, digit in zip(range(10, 1, -1), body, strict=True))
    if "0123456789X"[-total % 11] != check:
        return None
    return (isbn13 := f"978{body}") + str(-_weigh(isbn13) % 10)


def _weigh(digits: str) -> int:
    return sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits)) % 10
