"""How texts are split into words for full-text search: `tokenize` of every script."""

import re
import unicodedata

import pytest
import regex
import unicodedata2

from chassis.text.search_words import casefold, tokenize


def test_every_letter_and_digit_is_a_word():
    for char in map(chr, range(0x110000)):
        if unicodedata2.category(char)[0] in "LN":
            assert tokenize(char), f"U+{ord(char):04X}"


def test_words_are_ascii_and_short_enough_for_every_index():
    chars = [chr(n) for n in range(0x20, 0x30000, 31) if not 0xD800 <= n < 0xE000]

    for text in ("".join(chars), " ".join(chars), *("".join(3 * [char] * 30) for char in chars)):
        for word in tokenize(text):
            assert re.fullmatch("[a-z0-9_]{3,82}", word), word


def test_marks_count_in_all_scripts_but_those_where_they_tell_pronunciation():
    shared = regex.compile(r"[\p{sc=Zinh}\p{sc=Zyyy}\p{Default_Ignorable_Code_Point}]")
    pointed = regex.compile(r"[\p{sc=Latn}\p{sc=Grek}\p{sc=Cyrl}\p{sc=Hebr}\p{sc=Arab}\p{sc=Syrc}]")
    marks = [c for c in map(chr, range(0x110000)) if unicodedata2.category(c)[0] == "M"]

    for mark in marks:
        counts = tokenize(f"x{mark}") != tokenize("x")
        assert counts == (not shared.match(mark) and not pointed.match(mark)), f"U+{ord(mark):04X}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("915", "\u0915"),
        ("u_e6", "\u0915"),
        ("\u0915\u0916", "\u0915 \u0916"),
        ("x" * 200, "x" * 201),
        ("\u0915" * 60, "\u0915" * 61),
        ("ф" * 16 + "а", "ф" * 16 + "б"),
    ],
)
def test_other_words_are_spelt_otherwise(one: str, other: str):
    assert tokenize(one) != tokenize(other)


def test_case_of_letters_newer_than_the_interpreter_is_folded():
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) == "Cn" and unicodedata2.category(char) == "Lu":
            small = casefold(char)
            assert small != char
            assert regex.fullmatch(small, char, regex.IGNORECASE | regex.FULLCASE)


def test_words_are_folded_and_padded():
    assert tokenize("The É, o'Neil_x") == ["the__", "e__", "o__", "neil__", "x__"]
