"""From a station file to the inference server that its line asks, if it asks one and may."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_runtime.config.paths import socket_path
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import MS, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import Event
from edge_runtime.flow.components import Health, State
from edge_runtime.inference.picture_wire import SOCKET
from edge_runtime.inference.remote_picture import RemotePicture

log = logging.getLogger(__name__)

STAYS = "pictures stay in the box (model.remote.may_leave = false): its own model judges alone"


def open_remote(cfg: EdgeConfig, tell: Callable[[Event], None], clock: Clock) -> RemotePicture | None:
    """Not started yet; None where the station asks no server, or may not."""
    if cfg.model.predictor != "remote":
        return None
    if not cfg.model.remote.may_leave:
        log.warning("remote.stays %s", STAYS)
        return None

    def changed(is_up: bool, what: str) -> None:
        kind, key = (EventKind.REMOTE_ANSWERS, "server") if is_up else (EventKind.REMOTE_LOST, "why")
        tell(Event(kind, clock(), {key: what}))

    share_ns = round(cfg.model.remote.share * cfg.decision.deadline_ms * MS)
    return RemotePicture(socket_path(cfg).with_name(SOCKET), share_ns, changed, clock)


def health_of_remote(cfg: EdgeConfig, remote: RemotePicture | None) -> Health | None:
    """None where the station asks no server."""
    if remote is not None:
        return remote.health()
    return Health(State.DEGRADED, STAYS) if cfg.model.predictor == "remote" else None
