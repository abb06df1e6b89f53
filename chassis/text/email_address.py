"""E-mail addresses: the normal form, for storage, look-up and limits, and the form for SMTP."""

from email.errors import ObsoleteHeaderDefect
from email.headerregistry import Address
from email.policy import SMTP

import idna
from email_validator import validate_email
from pydantic_core import PydanticCustomError
from unicodedata2 import decomposition, normalize

MAX_LENGTH = 254  # of the stored form; RFC 5321, 4.5.3.1.3 without the angle brackets
MAX_RAW = 3 * MAX_LENGTH  # a longer text has no form of MAX_LENGTH


def _narrow(code: int) -> str:
    kind, _, target = decomposition(chr(code)).partition(" ")
    return chr(int(target, 16)) if kind in ("<wide>", "<narrow>") else chr(code)


# East Asian input methods write wide Latin letters, digits and `@` (RFC 8265, 3.3.1).
WIDTHS = {code: _narrow(code) for code in range(0xFF01, 0xFFEF)}


def normalize_email(text: str) -> str:
    """The normal form: NFC and lower case, the domain in Unicode. It is idempotent.

    Raises ValueError where it is not a plain address: it has a display name, a quoted local part or
    a domain literal.
    """
    if len(text) > MAX_RAW:
        raise _refused(f"The email address is longer than {MAX_LENGTH} characters")
    local, at, domain = normalize("NFC", text.strip().translate(WIDTHS)).rpartition("@")
    try:
        # Capitals of the domain, such as Greek ones, have rules of their own (UTS 46).
        address = validate_email(local.lower() + at + domain, check_deliverability=False)
    except ValueError as error:
        raise _refused(str(error)[:200]) from None  # it may name each of the characters
    return address.normalized


def normalize_prefix(text: str) -> str:
    """What the normal form of an address begins with, if the address begins with `text`."""
    prefix: str = normalize("NFC", text.strip().translate(WIDTHS))
    return prefix.lower()


def _refused(reason: str) -> PydanticCustomError:
    return PydanticCustomError("email_address", "{reason}", {"reason": reason})


def ascii_form(address: str) -> str:
    """With the domain in ASCII (IDNA), for servers without SMTPUTF8 (RFC 6531); the local part is
    unchanged. Raises ValueError where the domain has no such form.
    """
    local, at, domain = address.rpartition("@")
    if not domain.isascii():
        domain = idna.encode(domain, uts46=True).decode()
    return local + at + domain


def read_sender(text: str) -> Address:
    """Parse `Sales <sales@example.com>`, with the domain in ASCII. Raises ValueError where it is no
    address, or the local part is not ASCII.
    """
    try:
        header = SMTP.header_factory("From", text)
    except IndexError:  # Python's parser, of `a@`
        raise ValueError("This is not an address") from None
    # Obsolete syntax is harmless, such as the dot of `Sales Inc. <sales@example.com>`.
    if not all(isinstance(defect, ObsoleteHeaderDefect) for defect in header.defects):
        raise ValueError("This is not an address")
    [sender] = header.addresses
    domain = ascii_form(f"@{sender.domain}")[1:]
    if not (sender.username and domain and (sender.username + domain).isascii()):
        raise ValueError("This is not an address that every mail server accepts")
    return Address(sender.display_name, sender.username, domain)
