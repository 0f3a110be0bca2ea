"""Keys of an update repository: Ed25519, one PEM file each (PKCS#8), encrypted where there is a passphrase."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner


class RepoError(Exception):
    """The repository or its keys cannot be used: the sentence says why and what to do."""


class Keys:
    """The files of one folder. Nothing that exists is written over."""

    def __init__(self, folder: Path, passphrase: bytes | None = None) -> None:
        self.folder = folder
        self._passphrase = passphrase

    def make(self, name: str) -> CryptoSigner:
        key = Ed25519PrivateKey.generate()
        how: KeySerializationEncryption = NoEncryption()
        if self._passphrase:
            how = BestAvailableEncryption(self._passphrase)
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            fd = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as err:
            raise RepoError(f"{self._path(name)} exists; keys are never written over, take another folder") from err
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        return CryptoSigner(key)

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def signer(self, name: str) -> CryptoSigner:
        path = self._path(name)
        try:
            key = load_pem_private_key(path.read_bytes(), self._passphrase)
        except FileNotFoundError as err:
            raise RepoError(f"no key {path}; bring it, or name its folder with --keys") from err
        except (ValueError, TypeError) as err:
            raise RepoError(f"{path} cannot be opened: {err}; look at --passphrase-file") from err
        if not isinstance(key, Ed25519PrivateKey):
            raise RepoError(f"{path} is no Ed25519 key")
        return CryptoSigner(key)

    def names(self, stem: str) -> list[str]:
        """`root-1`, `root-2`, ... of a stem, in order of age."""
        found = [path.stem for path in self.folder.glob(f"{stem}-*.pem")]
        return sorted(
            (name for name in found if name.rpartition("-")[2].isdigit()), key=lambda n: int(n.rpartition("-")[2])
        )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"
