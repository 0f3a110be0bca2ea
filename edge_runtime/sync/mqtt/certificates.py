"""What a certificate says of itself, for people who look after it.

The daemon does without: `cryptography` costs it 8 MB, and the broker says what it does not accept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whose it is, and from when to when it is good."""

    name: str  # common name; empty when it has none
    begins: datetime
    ends: datetime


def read_certificate(file: str) -> Certificate:
    """The first one of a PEM file. Raises OSError or ValueError."""
    certificate = load_pem_x509_certificate(Path(file).read_bytes())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return Certificate(name, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
