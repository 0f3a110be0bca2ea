"""How a broker is reached, and what it means when it is not. Knows TLS and files, not MQTT."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

CONNECT_WAIT_S = 3.0  # for TCP and TLS, during which the thread stands still; SIGTERM must end within 5 s


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files, read at every connection so that renewed certificates count at once. Empty: system's, or none."""

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    host: str
    port: int
    client_id: str
    protocol: str = "auto"  # auto | 5 | 3.1.1
    keepalive_s: int = 30
    username: str = ""
    password_file: str = ""
    tls: TlsFiles | None = None
    window: int = 100
    ack_timeout_s: float = 20.0
    reconnect_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3, the broker's name checked. Raises OSError (ssl.SSLError is one) when a file is no good."""
    for file in filter(None, (files.ca, files.cert, files.key)):
        Path(file).read_bytes()  # ssl's own error does not say which file is missing
    context = ssl.create_default_context(cafile=files.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if files.cert:
        context.load_cert_chain(files.cert, files.key)
    return context


def read_password(file: str) -> str | None:
    return Path(file).read_text().rstrip("\n") if file else None


def explain_refusal(error: Exception) -> str:
    """What keeps us from connecting, and what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted ({error.verify_message}): check sync.ca_file and the clock"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}): check sync.cert_file, sync.key_file and the broker's TLS version"
    if isinstance(error, (FileNotFoundError, PermissionError)) and error.filename:
        return f"{error.filename} cannot be read: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_WAIT_S:g} s: check cable, address and firewall"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: check sync.host, sync.port and that the broker runs"
    return str(error) or type(error).__name__
