"""API keys: how they are written, and recognised without looking anything up."""

import re
import secrets
from hashlib import sha256
from string import ascii_letters, digits
from typing import Any, NamedTuple
from zlib import crc32

from chassis.auth.settings import KeySettings
from chassis.errors import Unauthorized
from chassis.schemas.fields import MAX_ID

HEADER = "X-API-Key"
ALPHABET = digits + ascii_letters
ID = 11  # characters of 63 bits
SECRET = 43  # of 256 bits
CHECKSUM = 6  # of 32 bits
SHOWN = 6  # of the id, in lists
MALFORMED = "The API key is incomplete or mistyped"


class ParsedKey(NamedTuple):
    """What a well-formed key says of itself: anybody may make one up."""

    user_id: int
    key_id: int
    digest: str


class KeyClaims(NamedTuple):
    """Of a key that was looked up, and is valid."""

    user_id: int
    key_id: int
    can_write: bool
    account: Any  # as the service has loaded it


class ApiKeys:
    """Writes and reads keys: a prefix, id, account and 256 random bits in base 62, a checksum.

    The prefix tells people and secret scanners what it is. The checksum refuses typing errors, and
    what was made up by those who do not know it. The ids are in the key, so the tags of its cached
    account are known before anything is looked up. See docs/api-keys.md.
    """

    def __init__(self, settings: KeySettings) -> None:
        self.prefix = f"{settings.prefix}_"
        parts = "".join(f"([0-9A-Za-z]{{{size}}})" for size in (ID, ID, SECRET, CHECKSUM))
        self._form = re.compile(re.escape(self.prefix) + parts)

    def make(self, user_id: int, key_id: int) -> str:
        parts = ((key_id, ID), (user_id, ID), (secrets.randbits(256), SECRET))
        text = self.prefix + "".join(_encode(number, size) for number, size in parts)
        return text + _checksum(text)

    def read(self, text: str) -> ParsedKey:
        """Raises Unauthorized unless it is written as `make` does."""
        match = self._form.fullmatch(text)
        if match is None or _checksum(text[:-CHECKSUM]) != match[4]:
            raise Unauthorized(MALFORMED, invalid=True)
        key_id, user_id = _decode(match[1]), _decode(match[2])
        if not (0 < user_id <= MAX_ID and 0 < key_id <= MAX_ID):
            raise Unauthorized(MALFORMED, invalid=True)
        return ParsedKey(user_id, key_id, digest_of(text))

    def start(self, key_id: int) -> str:
        """What a key begins with, for people who compare it: part of its id, and no secret."""
        return self.prefix + _encode(key_id, ID)[:SHOWN]


def digest_of(key: str) -> str:
    """Without salt and at once: 256 random bits cannot be guessed, however fast a hash is."""
    return sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _encode(crc32(text.encode()), CHECKSUM)


def _encode(number: int, size: int) -> str:
    letters = []
    for _ in range(size):
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return "".join(reversed(letters))


def _decode(text: str) -> int:
    number = 0
    for letter in text:
        number = number * len(ALPHABET) + ALPHABET.index(letter)
    return number
