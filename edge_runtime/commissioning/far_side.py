"""The reject controller or PLC of a station, for tools that look at it while no line runs.

A port has one owner. While the daemon runs it is the owner, and is asked instead, also when it does not answer; any
other process that has the port is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.actuation.controller_link import open_link
from edge_runtime.config.paths import socket_path
from edge_runtime.config.schema import ControllerConfig, EdgeConfig, SafeAction
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.status import Status
from edge_runtime.process.ask_status import ask_status
from edge_runtime.process.control import NobodyThere
from edge_runtime.simulation.line import SimLine, controller_beside
from firmware_bridge.adapters import user_of
from firmware_bridge.modbus.link import setup_block
from firmware_bridge.modbus.rtu import Line
from firmware_bridge.watch import BEAT_EVERY_NS, FramesWatch, Watch
from firmware_bridge.watch_plc import BoxWatch, PlcWatch

PSEUDO_TERMINALS = "/dev/pts/"
ASK_S = 2.0


def running_box(cfg: EdgeConfig) -> Status | None:
    """The status of the daemon of this station; None when none runs.

    Raises Refused or NoAnswer for one that runs and does not say: its devices are not free. ProtocolError for one of
    another version.
    """
    try:
        return ask_status(socket_path(cfg), ASK_S)
    except NobodyThere:
        return None


@contextmanager
def far_side(cfg: EdgeConfig) -> Iterator[str]:
    """The port of the station's controller, free to be opened; a simulated line is started for as long as it takes.

    Raises DeviceError when somebody else has it, and what `running_box` raises.
    """
    box = running_box(cfg)
    if box is not None:
        raise DeviceError(
            f"the running box (process {box.pid}) owns the controller",
            "stop it first, systemctl stop edge-runtime-run",
        )
    if cfg.controller.driver == "sim" and not cfg.camera.sim.attach:
        sim = SimLine(cfg.world, cfg.controller, width=cfg.camera.width, height=cfg.camera.height)
        sim.start()
        try:
            yield sim.controller_port
        finally:
            sim.stop()
        return
    port = cfg.controller.port or controller_beside(cfg.camera.sim.attach)
    holder = other_user(port)
    if holder:
        raise DeviceError(f"{port} is in use by process {holder}", "stop it, two readers take each other's bytes")
    yield port


def other_user(port: str) -> str:
    """`PID NAME` of another process that has a real port open. A pseudo-terminal's maker always has it open."""
    return "" if str(Path(port).resolve()).startswith(PSEUDO_TERMINALS) else user_of(port)


def open_watch(cfg: ControllerConfig, safe_action: SafeAction, *, beat_every_ns: int = BEAT_EVERY_NS) -> Watch:
    """A watch for what the station file says is at the port."""
    setup = open_link(cfg, safe_action).setup
    if cfg.protocol == "reject":
        return FramesWatch(setup, beat_every_ns=beat_every_ns)
    line = Line(cfg.baud, cfg.parity)
    if cfg.role == "client":
        return PlcWatch(line, cfg.unit, echo=cfg.rs485_echo)
    return BoxWatch(line, cfg.unit, setup_block(setup), echo=cfg.rs485_echo)
