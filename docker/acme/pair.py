"""A certificate and its key, as two files of PEM."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

Pair = tuple[bytes, bytes]  # the chain, and the key


def read_pair(folder: Path) -> Pair | None:
    try:
        return (folder / "fullchain.pem").read_bytes(), (folder / "privkey.pem").read_bytes()
    except FileNotFoundError:
        return None


def fault_of(pair: Pair, domains: list[str]) -> str:
    """Why clients would not accept it, or nothing."""
    try:
        leaf = x509.load_pem_x509_certificates(pair[0])[0]
        key = load_pem_private_key(pair[1], None)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        return f"it is damaged ({error})"
    missing = {*domains} - {*names.get_values_for_type(x509.DNSName)}
    if leaf.public_key() != key.public_key():
        return "the key belongs to another certificate"
    if missing:
        return f"it is not for {', '.join(sorted(missing))}"
    if not leaf.not_valid_before_utc <= datetime.now(UTC) < leaf.not_valid_after_utc:
        return f"it is valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}"
    return ""


def validity(pair: Pair) -> str:
    return f"valid until {x509.load_pem_x509_certificates(pair[0])[0].not_valid_after_utc}"
