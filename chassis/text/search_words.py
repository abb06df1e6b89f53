"""The tokenizer of full-text search: words of any script, encoded in ASCII.

Texts and queries are tokenized alike, so the rules of the database for letters, accents, stop words
and short words have no effect. See docs/search.md.
"""

from functools import lru_cache
from hashlib import blake2b

import regex
import unicodedata2

# Stored with the words; rows with a lower number are tokenized again. Raise it when the words of
# any text change; a newer version of Unicode raises it by itself.
RULE = 100 * 1 + int(unicodedata2.unidata_version.partition(".")[0])

MAX_LENGTH = 80  # characters of a word; InnoDB omits words of more than 84
PREFIX = 40  # characters that a longer word keeps, before its digest

# Marks of these scripts (accents, points, harakat) do not distinguish words.
_POINTED = r"\p{sc=Latn}\p{sc=Grek}\p{sc=Cyrl}\p{sc=Hebr}\p{sc=Arab}\p{sc=Syrc}"
_SHARED = r"\p{sc=Zyyy}\p{sc=Zinh}"
_POINTED_MARK = regex.compile(f"[{_POINTED}]")
_SHARED_MARK = regex.compile(f"[{_SHARED}]")
_POINTED_LETTER = regex.compile(f"[{_POINTED}{_SHARED}]")
_MARK = regex.compile(r"\p{M}")
_CYRILLIC = regex.compile(r"\p{sc=Cyrl}")
# No spaces between words: Han and Kana, Thai to Khmer (Line_Break SA), Javanese and the like.
_UNSPACED = regex.compile(
    r"[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{scx=Kana}\p{Lb=ID}\p{Lb=SA}\p{Lb=AK}\p{Lb=AP}\p{Lb=AS}]"
)
_IGNORED = regex.compile(r"[\p{Default_Ignorable_Code_Point}--[\p{L}\u200b]]", regex.V1)
_RUN = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_CLUSTER = regex.compile(r"(.)(\p{M}*)")
_LETTERS_ALONE = regex.compile(r"[\p{L}\p{N}]+")
_LATIN = regex.compile(
    r"LATIN (?:SMALL LETTER|LETTER SMALL CAPITAL) (?:DOTLESS )?([A-Z])(?: WITH .*)?"
)
_APOSTROPHES = frozenset("\u02b9\u02ba\u02bb\u02bc\u02bd\u02be\u02bf\u02c8")
_FILLERS = frozenset("\u0640\u115f\u1160")  # Arabic tatweel, Hangul fillers
# Older encodings, with a joiner, of letters that have code points of their own.
_JOINED = {
    "\u0d23\u0d4d\u200d": "\u0d7a",  # Malayalam chillus
    "\u0d28\u0d4d\u200d": "\u0d7b",
    "\u0d30\u0d4d\u200d": "\u0d7c",
    "\u0d32\u0d4d\u200d": "\u0d7d",
    "\u0d33\u0d4d\u200d": "\u0d7e",
    "\u0d15\u0d4d\u200d": "\u0d7f",
    "\u09a4\u09cd\u200d": "\u09ce",  # Bengali khanda ta
}
_LETTERS = dict(zip("æœþðŋĸəɛɔ", ("ae", "oe", "th", "d", "n", "k", "e", "e", "o"), strict=True))


def tokenize(*texts: str) -> list[str]:
    return [word for text in texts for phrase in phrases(text) for word in phrase]


def phrases(text: str) -> list[list[str]]:
    """The words, grouped by runs without a space or sign in between.

    In scripts without spaces each letter with its marks is a word, so that parts of longer runs are
    found; as phrases, they do not match the same letters in another order.
    """
    for sequence, letter in _JOINED.items():
        text = text.replace(sequence, letter)
    runs = _RUN.findall(unicodedata2.normalize("NFKD", _IGNORED.sub("", text)))
    found = [words for run in runs if (words := _words(run))]
    # A text of only signs that are letters to Unicode, such as apostrophes, is found by them.
    return found or [[_spell(word)] for word in _LETTERS_ALONE.findall(text)]


def _words(run: str) -> list[str]:
    if run.isascii():
        return [_spell(run.lower())]
    words = [""]
    for letter, marks in _CLUSTER.findall(run):
        if letter in _APOSTROPHES:
            words.append("")
        elif _UNSPACED.match(letter):
            words += [_fold(letter, marks), ""]
        else:
            words[-1] += _fold(letter, marks)
    return [_spell(word) for word in words if word]


@lru_cache(maxsize=4096)
def _fold(letter: str, marks: str) -> str:
    """Without case, form, and marks that do not distinguish words."""
    letter = _fold_letter(letter)
    return letter + "".join(mark for mark in marks if _counts(letter, mark))


def _fold_letter(letter: str) -> str:
    digit = unicodedata2.decimal(letter, None)
    if digit is not None:
        return str(digit)
    stray_mark = _MARK.match(letter) and not _counts("", letter)
    if stray_mark or letter in _FILLERS:
        return ""
    return "".join(_LETTERS.get(part) or _latin(part) or part for part in casefold(letter))


def casefold(letter: str) -> str:
    """By Unicode's rules, also for letters that are newer than the tables of this Python."""
    folded = letter.casefold()
    if folded != letter or unicodedata2.category(letter) != "Lu":
        return folded
    try:
        return str(unicodedata2.lookup(unicodedata2.name(letter).replace("CAPITAL", "SMALL")))
    except KeyError:
        return letter


def _latin(letter: str) -> str | None:
    """`l` of `ł`, which has no decomposition."""
    found = _LATIN.fullmatch(unicodedata2.name(letter, ""))
    return str(found[1]).lower() if found else None


def _counts(letter: str, mark: str) -> bool:
    if _POINTED_MARK.match(mark):
        return False
    if not _SHARED_MARK.match(mark):
        return True
    if _CYRILLIC.match(letter):
        # A letter with a code point of its own is another letter, such as й and ї.
        composed = unicodedata2.normalize("NFC", letter + mark)
        return len(composed) == 1 and composed not in "ѐёѝ"
    return letter != "" and not _POINTED_LETTER.match(letter)


def _spell(word: str) -> str:
    """Two underscores at the end: no word is too short for an index, or a stop word."""
    word = unicodedata2.normalize("NFC", word)
    if not word.isascii():
        # No ASCII word has an underscore, so this cannot be another word.
        word = "u_" + "_".join(f"{ord(char):x}" for char in word)
    if len(word) > MAX_LENGTH:
        word = f"{word[:PREFIX]}_{blake2b(word.encode(), digest_size=16).hexdigest()}"
    return f"{word}__"
