"""What a password may be, and the one form in which it is hashed."""

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

    In the spirit of NIST SP 800-63B-4, 3.1.1.2: length and no rules of composition.
    """
    if len(password) < min_length:
        return f"String should have at least {min_length} characters"
    typed = password.strip().casefold()
    if typed in (email.casefold(), ascii_form(email), email.rpartition("@")[0].casefold()):
        return "Is the e-mail address, which is the first guess"
    return None


def _too_long() -> PydanticCustomError:
    return PydanticCustomError("password_too_long", f"Has more than {MAX_BYTES} bytes of UTF-8")
