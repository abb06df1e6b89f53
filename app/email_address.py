"""E-mail addresses: one form for storing, looking up and limiting them, and one for SMTP."""

from email.errors import ObsoleteHeaderDefect
from email.headerregistry import Address
from email.policy import SMTP

import idna
from email_validator import validate_email
from pydantic_core import PydanticCustomError
from unicodedata2 import decomposition, normalize

MAX_LENGTH = 254  # of the stored form; RFC 5321, 4.5.3.1.3 without the angle brackets
MAX_RAW = 3 * MAX_LENGTH  # what is longer has no form of that length


def _narrow(code: int) -> str:
    kind, _, target = decomposition(chr(code)).partition(" ")
    return chr(int(target, 16)) if kind in ("<wide>", "<narrow>") else chr(code)


# As input methods of East Asia write Latin letters, digits and `@` (RFC 8265, 3.3.1).
WIDTHS = {code: _narrow(code) for code in range(0xFF01, 0xFFEF)}


def normalize_email(text: str) -> str:
    """The form that all spellings of one mailbox share: NFC and lower case, the domain in Unicode.

    It is a fixed point: the form of the form is itself. Raises ValueError where it is no address
    alone, such as one with a display name, a quoted local part or a domain literal.
    """
    if len(text) > MAX_RAW:
        raise _refused(f"The email address is longer than {MAX_LENGTH} characters")
    local, at, domain = normalize("NFC", text.strip().translate(WIDTHS)).rpartition("@")
    try:
        # The domain has rules of its own for capitals, such as those of Greek (UTS 46).
        address = validate_email(local.lower() + at + domain, check_deliverability=False)
    except ValueError as error:
        raise _refused(str(error)[:200]) from None  # it may name each of the characters
    return address.normalized


def _refused(reason: str) -> PydanticCustomError:
    return PydanticCustomError("email_address", "{reason}", {"reason": reason})


def ascii_form(address: str) -> str:
    """With the domain as DNS has it, so that servers without SMTPUTF8 (RFC 6531) take it, unless
    the local part needs more than ASCII.

    Raises ValueError where the domain has no such form.
    """
    local, at, domain = address.rpartition("@")
    if not domain.isascii():
        domain = idna.encode(domain, uts46=True).decode()
    return local + at + domain


def read_sender(text: str) -> Address:
    """Read `Books <books@example.com>`. Raises ValueError where mail cannot come from there, with
    the domain as DNS has it and no more than ASCII before it.
    """
    try:
        header = SMTP.header_factory("From", text)
    except IndexError:  # Python's parser, of `a@`
        raise ValueError("This is no address") from None
    # Obsolete is what is harmless, as the dot of `Books Inc. <books@example.com>`.
    if not all(isinstance(defect, ObsoleteHeaderDefect) for defect in header.defects):
        raise ValueError("This is no address")
    [sender] = header.addresses
    domain = ascii_form(f"@{sender.domain}")[1:]
    if not (sender.username and domain and (sender.username + domain).isascii()):
        raise ValueError("This is no address that every mail server takes")
    return Address(sender.display_name, sender.username, domain)
