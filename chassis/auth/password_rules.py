"""Rules for passwords, and the normal form in which they are hashed."""

import runpy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import PydanticCustomError
from unicodedata2 import category, normalize

from chassis.text.email_address import ascii_form

MAX_BYTES = 1024  # of UTF-8
# A Greek vowel with three marks is four characters that compose to three bytes. A longer text has
# no form of MAX_BYTES; normalising it takes time quadratic in the number of its marks.
MAX_RAW = 2 * MAX_BYTES


def normalize_password(password: str) -> str:
    """NFC, as keyboards type one letter as different code points (RFC 8265, 4.2.2: OpaqueString);
    neither trimmed nor case-folded. Raises ValueError where it is too long or not Unicode text.
    """
    if len(password) > MAX_RAW:
        raise _too_long()
    normal: str = normalize("NFC", password)
    try:
        size = len(normal.encode())
    except UnicodeEncodeError:
        raise PydanticCustomError("password_text", "Contains a lone surrogate") from None
    if size > MAX_BYTES:
        raise _too_long()
    return normal


def check_new_password(password: str) -> str:
    """The normal form. Raises ValueError where no account may have it; see `weakness` for the rules
    that depend on settings and the account.
    """
    normal = normalize_password(password)
    if any(category(character) == "Cc" for character in normal):
        # RFC 8265 refuses them too: most forms and terminals cannot send them.
        raise PydanticCustomError("password_text", "Contains a control character")
    return normal


def weakness(password: str, email: str, min_length: int) -> str | None:
    """The reason why the account of `email` may not have this password, or None.

    In the spirit of NIST SP 800-63B-4, 3.1.1.2: length, a list, and no rules of composition.
    """
    if len(password) < min_length:
        return f"String should have at least {min_length} characters"
    typed = password.strip().casefold()
    if typed in (email.casefold(), ascii_form(email), email.rpartition("@")[0].casefold()):
        return "Is the e-mail address, which is easy to guess"
    if typed in common_passwords(min_length):
        return "Is one of the most common passwords"
    return None


@cache
def common_passwords(min_length: int) -> frozenset[str]:
    """Those of zxcvbn's 30,000 that are long enough, in lower case.

    The module is run, not imported: an import keeps all its lists and indexes, 14 MB.
    """
    package = find_spec("zxcvbn")
    if package is None or package.origin is None:
        raise ImportError("zxcvbn, which has the list of common passwords, is not installed")
    lists = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))
    passwords: list[str] = lists["FREQUENCY_LISTS"]["passwords"]
    return frozenset(password for password in passwords if len(password) >= min_length)


def _too_long() -> PydanticCustomError:
    return PydanticCustomError("password_too_long", f"Has more than {MAX_BYTES} bytes of UTF-8")
