"""Doctor's look at the inference server that the line asks: may it be asked, is the way there, does it answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.paths import socket_path
from edge_runtime.core.errors import DeviceError, EdgeError, ProtocolError
from edge_runtime.core.remote_standing import RemoteStanding, Standing
from edge_runtime.core.typed_json import from_json
from edge_runtime.inference.picture_wire import SOCKET
from edge_runtime.process.ask_status import ask_status
from edge_runtime.process.control import exchange

if TYPE_CHECKING:
    from edge_runtime.config.load import Loaded
    from edge_runtime.config.schema import EdgeConfig, RemoteModelConfig

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
    yield _told(about, line_standing(cfg))


def line_standing(cfg: EdgeConfig) -> RemoteStanding | None:
    """As the running line has it: it alone knows until when a server rests. None where no line runs that asks one."""
    try:
        remote = ask_status(socket_path(cfg), ASK_S).report.remote
    except EdgeError:
        return None
    return remote.standing if remote else None


def _files(cfg: RemoteModelConfig) -> Iterator[Finding]:
    for key in ("token_file", "ca_file"):
        path = getattr(cfg, key)
        if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
            yield Finding("remote", "fail", f"model.remote.{key} = {path} cannot be read", f"set model.remote.{key}")


def _told(about: Mapping[str, Any], line: RemoteStanding | None) -> Finding:
    """What the line says of the server, else what serve does, and how many questions about parts were answered."""
    counts = about.get("pictures", {})
    standing = line or from_json(RemoteStanding, about.get("standing"), "standing")
    answered = f"{counts.get('answered', 0)} answers to {counts.get('asked', 0)} questions about parts"
    detail = f"{about.get('server')} {standing.words(datetime.now().astimezone())}; serve had {answered}"
    match standing.standing:
        case Standing.ANSWERS:
            return Finding("remote", "ok", detail)
        case Standing.NOT_ASKED if standing.tried_s is not None:
            return Finding("remote", "ok", detail)
        case Standing.NOT_ASKED:
            return Finding("remote", "warn", detail, "start edge-runtime run: nobody has asked the server")
    return Finding("remote", "warn", detail, "the box's own model judges; check model.remote.url and the server")
