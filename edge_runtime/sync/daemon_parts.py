"""From settings to parts: how the broker is reached, and who carries pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edge_runtime.config.schema import SyncConfig
from edge_runtime.core.clock import Clock
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.settings import LinkSettings, TlsFiles
from edge_runtime.sync.mqtt.tls_files import tls_context
from edge_runtime.sync.outbox.outbox import Outbox
from edge_runtime.sync.pictures.http import HttpCarrier
from edge_runtime.sync.pictures.upload import Carrier, MqttCarrier, Uploads


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


def credential(name: str, env: Mapping[str, str]) -> str:
    """A bare file name lies where systemd's LoadCredential puts it; a path is a path."""
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    return str(Path(folder) / name) if name and folder and "/" not in name else name


def make_carrier(cfg: SyncConfig, link: MqttLink, topic: str, box: str, env: Mapping[str, str]) -> Carrier | None:
    """None where pictures stay on the box."""
    if cfg.evidence == "off":
        return None
    if cfg.evidence == "mqtt":
        return MqttCarrier(link, topic, box)
    files = tls_files(cfg, env)  # the picture server may speak TLS where the broker does not
    return HttpCarrier(cfg.evidence_url, box, lambda: tls_context(files), link.wake)


def make_uploads(
    cfg: SyncConfig,
    outbox: Outbox,
    state: Path,
    carrier: Carrier,
    wall: WallClock,
    clock: Clock,
    is_metered: Callable[[], bool] | None,
) -> Uploads:
    return Uploads(
        outbox,
        state,
        carrier,
        wall,
        clock,
        bytes_s=cfg.evidence_kb_s * 1000,
        hours=cfg.evidence_hours,
        is_metered=is_metered or (lambda: cfg.metered),
    )
