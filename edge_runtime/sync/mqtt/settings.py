"""How a broker is reached."""

from __future__ import annotations

from dataclasses import dataclass

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
    max_packet_bytes: int = 0  # larger packets are not sent; 0: what the broker takes


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
