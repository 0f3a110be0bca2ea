"""How a broker is reached, from the station file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.process.credentials import credential

if TYPE_CHECKING:
    from edge_runtime.config.schema import SyncConfig

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


def link_settings(cfg: SyncConfig, box: str, env: Mapping[str, str], suffix: str = "") -> LinkSettings:
    """How to reach the broker. suffix: for a second connection with a client id of its own."""
    return LinkSettings(
        host=cfg.host,
        port=cfg.port,
        client_id=(cfg.client_id or f"edge-{box}") + suffix,
        protocol=cfg.protocol,
        keepalive_s=cfg.keepalive_s,
        username=cfg.username,
        password_file=credential(cfg.password_file, env),
        tls=tls_files(cfg, env) if cfg.tls else None,
        window=cfg.window,
        ack_timeout_s=cfg.ack_timeout_s,
        reconnect_max_s=cfg.reconnect_max_s,
        max_packet_bytes=cfg.max_packet_bytes,
    )


def tls_files(cfg: SyncConfig, env: Mapping[str, str]) -> TlsFiles:
    return TlsFiles(*(credential(name, env) for name in (cfg.ca_file, cfg.cert_file, cfg.key_file)))
