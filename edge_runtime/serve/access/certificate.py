"""The certificate of this box's own, for a station that listens to the network and names none.

Self-signed, an elliptic-curve key (P-256), good for ten years because nobody is there to renew it; kept in the state
folder, so that who trusted it once can go on. A client trusts it by its fingerprint, which `serve --token` tells; a
site with an authority of its own gives serve.cert_file and serve.key_file instead.

It names the box by name and by address. When `serve` starts under a name or an address that it lacks, a new one is made
with the same key, and the log tells both fingerprints. One that names more than is needed stays: an address that was
gone for a day must not cost everybody's trust.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ConfigError, InstallError, StorageError
from edge_runtime.process.credentials import credential
from edge_runtime.serve.access.origin import is_loopback_host, own_names
from edge_runtime.serve.access.own_addresses import own_addresses
from edge_runtime.serve.access.token import keep_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import GeneralName

log = logging.getLogger(__name__)

CERTIFICATE, KEY = "serve.pem", "serve.key"  # in the state folder
DAYS = 3650
EARLIER = timedelta(days=365)  # a box without a clock starts in the past


@dataclass(frozen=True, slots=True)
class Papers:
    """The files of a certificate and its private key."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server. Raises ConfigError when the files cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as err:
            raise ConfigError(
                f"the certificate {self.certificate} with the key {self.key} cannot be used: {err}",
                "check serve.cert_file and serve.key_file",
            ) from err
        return context

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers show it. Raises StorageError."""
        try:
            der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        except (OSError, ValueError) as err:
            raise StorageError(f"the certificate {self.certificate} cannot be read: {err}") from err
        digits = sha256(der).hexdigest().upper()
        return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def station_papers(cfg: EdgeConfig, renew: bool = False) -> Papers:
    """The certificate of the station file, else the box's own. Raises EdgeError as `own_papers` does.

    renew: make the box's own anew where it lacks a name; for who serves it, not for who only tells of it.
    """
    serve = cfg.serve
    if serve.cert_file:
        return Papers(Path(credential(serve.cert_file, os.environ)), Path(credential(serve.key_file, os.environ)))
    return own_papers(state_dir(cfg), cfg.station.name, _names(serve.allowed_hosts, serve.host), renew)


def _names(allowed: Sequence[str], listening: str) -> list[str]:
    """What clients may call this box, DNS names and addresses as text. listening: `serve.host`."""
    names = own_names(allowed, listening)
    if not is_loopback_host(listening):
        names += own_addresses()
    return list(dict.fromkeys(text for name in names if (text := _plain(name))))


def _plain(name: str) -> str:
    """An address as its library writes it; empty for one that means all."""
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name
    return "" if address.is_unspecified else str(address)


def own_papers(folder: Path, box: str, names: Sequence[str], renew: bool = True) -> Papers:
    """This box's own, made where there is none, and with `renew` where it lacks one of these names.

    Raises StorageError, or InstallError where `cryptography` is not there.
    """
    papers = Papers(folder / CERTIFICATE, folder / KEY)
    try:
        if not (papers.certificate.exists() and papers.key.exists()):
            key = _new_key()
            keep_secret(papers.key, _key_pem(key))
            keep_secret(papers.certificate, _certify(key, box, names))
        elif renew and (lacking := set(names) - _named(papers.certificate)):
            before = papers.fingerprint()
            keep_secret(papers.certificate, _certify(_kept_key(papers.key), box, names))
            log.warning(
                "certificate.renewed for=%s sha256=%s before=%s: tell clients that trusted the one before",
                ",".join(sorted(lacking)), papers.fingerprint(), before,
            )  # fmt: skip
    except OSError as err:
        raise StorageError(f"cannot keep a certificate in {folder}: {err.strerror or err}") from err
    return papers


def _named(path: Path) -> set[str]:
    """The names and addresses in a certificate; none where it cannot be read."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return set()
    return {str(one.value) for one in names}


def _new_key() -> EllipticCurvePrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as err:
        raise InstallError(
            "a certificate of this box's own needs cryptography",
            "pip install 'edge-runtime[serve]', or give serve.cert_file and serve.key_file",
        ) from err
    return ec.generate_private_key(ec.SECP256R1())


def _kept_key(path: Path) -> EllipticCurvePrivateKey:
    """Raises StorageError."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as err:
        raise StorageError(
            f"the key {path} cannot be read: {err}", "delete it and the certificate for new ones"
        ) from err
    if not isinstance(key, EllipticCurvePrivateKey):
        raise StorageError(f"the key {path} is none of this box's own", "delete it and the certificate for new ones")
    return key


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certify(key: EllipticCurvePrivateKey, box: str, names: Sequence[str]) -> bytes:
    """The certificate, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, box)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
