"""Which carrier takes a station's pictures."""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.config.schema import SyncConfig
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.settings import tls_files
from edge_runtime.sync.mqtt.tls_files import tls_context
from edge_runtime.sync.pictures.carrier import Carrier
from edge_runtime.sync.pictures.http import HttpCarrier
from edge_runtime.sync.pictures.mqtt import MqttCarrier


def choose_carrier(cfg: SyncConfig, link: MqttLink, topic: str, box: str, env: Mapping[str, str]) -> Carrier | None:
    """None where pictures stay on the box."""
    if cfg.evidence == "off":
        return None
    if cfg.evidence == "mqtt":
        return MqttCarrier(link, topic, box)
    files = tls_files(cfg, env)  # the picture server may speak TLS where the broker does not
    return HttpCarrier(cfg.evidence_url, box, lambda: tls_context(files), link.wake)
