"""What a password may be, and the one form in which it is hashed."""

import runpy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import PydanticCustomError
from unicodedata2 import category, normalize

from app.email_address import ascii_form

MAX_BYTES = 1024  # of UTF-8: argon2 reads more, but nobody needs it
# A Greek vowel with three marks is four characters that compose to three bytes. What is longer
# than this has no form of MAX_BYTES; to order many marks takes time quadratic in their number.
MAX_RAW = 2 * MAX_BYTES


def normalize_password(password: str) -> str:
    """NFC and nothing else, as two keyboards may type one letter as different code points
    (RFC 8265, 4.2.2: OpaqueString). Neither trimmed nor folded.

    Raises ValueError where it is too long or is not Unicode text.
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
    """Return it as it will be hashed. Raises ValueError where no account may have it, whatever
    the settings; see `weakness`.
    """
    normal = normalize_password(password)
    if any(category(character) == "Cc" for character in normal):
        # RFC 8265 refuses them too: most forms and terminals cannot send them.
        raise PydanticCustomError("password_text", "Contains a control character")
    return normal


def weakness(password: str, email: str, min_length: int) -> str | None:
    """Why the account of `email` should not have this password, or None.

    In the spirit of NIST SP 800-63B-4, 3.1.1.2: length, a list, and no rules of composition.
    """
    if len(password) < min_length:
        return f"String should have at least {min_length} characters"
    typed = password.strip().casefold()
    if typed in (email.casefold(), ascii_form(email), email.rpartition("@")[0].casefold()):
        return "Is the e-mail address, which is the first guess"
    if typed in common_passwords(min_length):
        return "Is one of the most common passwords"
    return None


@cache
def common_passwords(min_length: int) -> frozenset[str]:
    """Those of the 30,000 of zxcvbn that are long enough, in lower case.

    Its module is run, not imported: an import keeps all its lists and indexes, which are 14 MB.
    """
    package = find_spec("zxcvbn")
    if package is None or package.origin is None:
        raise ImportError("zxcvbn is not installed, which has the list of common passwords")
    lists = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))
    passwords: list[str] = lists["FREQUENCY_LISTS"]["passwords"]
    return frozenset(password for password in passwords if len(password) >= min_length)


def _too_long() -> PydanticCustomError:
    return PydanticCustomError("password_too_long", f"Has more than {MAX_BYTES} bytes of UTF-8")
