"""Doctor's look at the inference server that the line asks: may it be asked, is the way there, does it answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.paths import socket_path
from edge_runtime.core.errors import DeviceError, ProtocolError
from edge_runtime.inference.picture_wire import SOCKET
from edge_runtime.process.control import exchange

if TYPE_CHECKING:
    from edge_runtime.config.load import Loaded
    from edge_runtime.config.schema import RemoteModelConfig

ASK_S = 2.0
START = "start edge-runtime serve: the line itself has no network"


def remote_findings(loaded: Loaded) -> Iterator[Finding]:
    cfg = loaded.config
    if cfg.model.predictor != "remote":
        yield Finding("remote", "ok", "off")
        return
    if not cfg.model.remote.may_leave:
        what = "pictures stay in the box, so its own model judges alone: model.remote.may_leave is false"
        yield Finding("remote", "warn", what, "set it to true where pictures may leave, or model.predictor to local")
        return
    yield from _files(cfg.model.remote)
    try:
        about = exchange(socket_path(cfg).with_name(SOCKET), {"do": "health"}, ASK_S, "edge-runtime serve")
    except (DeviceError, ProtocolError) as err:
        yield Finding("remote", "warn", f"no server can be asked: {err.what}", START)
        return
    yield _told(about)


def _files(cfg: RemoteModelConfig) -> Iterator[Finding]:
    for key in ("token_file", "ca_file"):
        path = getattr(cfg, key)
        if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
            yield Finding("remote", "fail", f"model.remote.{key} = {path} cannot be read", f"set model.remote.{key}")


def _told(about: dict[str, Any]) -> Finding:
    """What serve says of the server, and of how many parts it answered."""
    counts = about.get("pictures", {})
    detail = f"{about.get('detail')}, {counts.get('answered', 0)} of {counts.get('asked', 0)} questions answered"
    if about.get("state") == "ok":
        return Finding("remote", "ok", detail)
    return Finding("remote", "warn", detail, "the box's own model judges; check model.remote.url and the server")
