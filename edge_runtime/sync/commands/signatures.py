"""Ed25519 signatures of commands (RFC 8032). Beside certificates.py the only file that imports `cryptography`.

A key is a file NAME.pub in a folder: the raw 32 bytes in base64, one line, as `edge-runtime sync key` writes it.
Whoever holds the private half may send commands; taking the file away takes the right away.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_runtime.core.errors import ConfigError
from edge_runtime.core.files import as_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_signed(folder: Path, key: str, message: bytes, signature: bytes) -> bool:
    """Whether the holder of `key` signed these bytes. False for an unknown or unreadable key."""
    if not NAME.fullmatch(key):
        return False
    try:
        raw = base64.b64decode(as_text((folder / f"{key}.pub").read_bytes()).strip(), validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
    except (OSError, ValueError, binascii.Error, InvalidSignature):
        return False
    return True


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A new pair: NAME.key (keep it away from the box) and NAME.pub. Raises ConfigError when it is there already."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for a key: letters, digits, dots and dashes")
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    if private.exists() or public.exists():
        raise ConfigError(f"{public} is there already; take another name")
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    private.touch(mode=0o600)
    private.write_text(base64.b64encode(key.private_bytes_raw()).decode() + "\n")
    public.write_text(base64.b64encode(key.public_key().public_bytes_raw()).decode() + "\n")
    return private, public


def sign(private: Path, message: bytes) -> bytes:
    """The signature of these bytes, 64 bytes long."""
    raw = base64.b64decode(as_text(private.read_bytes()).strip(), validate=True)
    return Ed25519PrivateKey.from_private_bytes(raw).sign(message)
