"""The certificate of this box's own, for a station that listens to the network and names none.

Self-signed, an elliptic-curve key (P-256), good for ten years because nobody is there to renew it; made once and kept
in the state folder, so that who trusted it once can go on. A client trusts it by its fingerprint, which `serve --token`
tells; a site with an authority of its own gives serve.cert_file and serve.key_file instead.
"""

from __future__ import annotations

import ipaddress
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
from edge_runtime.serve.access.origin import own_names
from edge_runtime.serve.access.token import keep_secret

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

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


def station_papers(cfg: EdgeConfig) -> Papers:
    """The certificate of the station file, else the box's own. Raises EdgeError as `own_papers` does."""
    serve = cfg.serve
    if serve.cert_file:
        return Papers(Path(credential(serve.cert_file, os.environ)), Path(credential(serve.key_file, os.environ)))
    return own_papers(state_dir(cfg), cfg.station.name, own_names(serve.allowed_hosts, serve.host))


def own_papers(folder: Path, box: str, names: Sequence[str]) -> Papers:
    """This box's own, made where there is none. names: DNS names and addresses that clients may use for it.

    Raises StorageError, or InstallError where `cryptography` is not there.
    """
    papers = Papers(folder / CERTIFICATE, folder / KEY)
    if not (papers.certificate.exists() and papers.key.exists()):
        try:
            certificate, key = _make(box, names)
            keep_secret(papers.key, key)
            keep_secret(papers.certificate, certificate)
        except OSError as err:
            raise StorageError(f"cannot keep a certificate in {folder}: {err.strerror or err}") from err
    return papers


def _make(box: str, names: Sequence[str]) -> tuple[bytes, bytes]:
    """Certificate and key, PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as err:
        raise InstallError(
            "a certificate of this box's own needs cryptography",
            "pip install 'edge-runtime[serve]', or give serve.cert_file and serve.key_file",
        ) from err
    key = ec.generate_private_key(ec.SECP256R1())
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
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in dict.fromkeys(names)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def _general(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)
