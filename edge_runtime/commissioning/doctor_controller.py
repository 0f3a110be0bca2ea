"""Doctor's look at the reject controller: port, adapter, firmware, registers, inputs.

While the daemon runs it owns the port and its own health says how the link is; only what can be seen from outside is
checked then. Otherwise the port is opened for a moment and the controller asked who it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_runtime.commissioning.far_side import open_watch, other_user, running_box
from edge_runtime.commissioning.finding import Finding
from edge_runtime.commissioning.silent_box import SILENT, unasked
from edge_runtime.config.load import Loaded
from edge_runtime.config.schema import ControllerConfig, EdgeConfig
from edge_runtime.core.status import Status
from firmware_bridge.adapters import SLOW_MS, latency_ms
from firmware_bridge.reject import core
from firmware_bridge.reject.far_side import WHAT_BLOCKS
from firmware_bridge.serial_device import PortError
from firmware_bridge.watch_port import look

ANSWER_WITHIN_S = 2.5  # a board that its opened port resets answers after one second


def controller_findings(loaded: Loaded) -> Iterator[Finding]:
    """All there is to say; see the module."""
    cfg = loaded.config
    if "sim" in (cfg.camera.driver, cfg.controller.driver) and not cfg.camera.sim.attach:
        yield from _core()
    if cfg.controller.driver == "sim":
        yield Finding("controller", "ok", "simulated")
        return
    port_findings = list(_port(cfg.controller))
    yield from port_findings
    if any(finding.state == "fail" for finding in port_findings):
        return
    yield from _adapter(cfg.controller)
    try:
        box = running_box(cfg)
    except SILENT as err:
        yield unasked("controller.link", err)
        return
    if box is not None:
        yield from _running(box)
        return
    holder = other_user(cfg.controller.port)
    if holder:
        fix = f"stop process {holder}: two readers take each other's bytes"
        yield Finding("controller.port", "fail", f"{cfg.controller.port} is in use by process {holder}", fix)
        return
    yield from _far_side(cfg)


def _core() -> Iterator[Finding]:
    """The simulated line's controller is the firmware's own core, which must be compiled; a real one brings its own."""
    try:
        core.load()
    except core.CoreError as err:
        yield Finding("controller.core", "fail", f"no simulated controller: {err}", f"{core.FIX}, then tools/install")


def _port(cfg: ControllerConfig) -> Iterator[Finding]:
    port = Path(cfg.port)
    if not cfg.port or not port.exists():
        fix = "check the cable and set controller.port; edge-runtime io serial lists adapters"
        yield Finding("controller", "fail", f"port {cfg.port or '(none)'} does not exist", fix)
    elif not port.is_char_device() or port == Path("/dev/null"):
        yield Finding("controller", "fail", f"{port} is not a serial port", "set controller.port to a serial device")
    elif not os.access(port, os.R_OK | os.W_OK):
        yield Finding("controller", "fail", f"{port} may not be opened", "usermod -aG dialout USER")
    else:
        yield Finding("controller", "ok", f"{port} at {cfg.baud} bit/s, {cfg.protocol}")
    if cfg.port and not cfg.port.startswith("/dev/serial/by-") and "ttyUSB" in cfg.port:
        fix = "use the name under /dev/serial/by-id/, it stays when adapters are replugged; edge-runtime io serial"
        yield Finding("controller", "warn", f"{cfg.port} may change its number", fix)


def _adapter(cfg: ControllerConfig) -> Iterator[Finding]:
    timer_ms = latency_ms(cfg.port)
    if timer_ms is None:
        return
    detail = f"the adapter's latency timer is {timer_ms} ms"
    if timer_ms <= SLOW_MS:
        yield Finding("controller.latency", "ok", detail)
        return
    name = Path(cfg.port).resolve().name
    fix = (
        "cp systemd/99-edge-runtime.rules /etc/udev/rules.d/ and replug, or now: "
        f"echo 1 > /sys/class/tty/{name}/device/latency_timer"
    )
    yield Finding("controller.latency", "warn", f"{detail}: each answer waits for it", fix)


def _running(box: Status) -> Iterator[Finding]:
    """How the link is, `daemon.controller` says; here what stands in the way of rejects."""
    report = box.report.controller
    yield from _inputs([name.upper() for name in report.inputs])
    yield from _echo(report.adapter_problem)
    yield Finding("controller.link", "ok", f"process {box.pid} owns the port, {report.phase}")


def _far_side(cfg: EdgeConfig) -> Iterator[Finding]:
    watch = open_watch(cfg.controller, cfg.decision.safe_action)
    try:
        look(
            cfg.controller.port,
            watch,
            ANSWER_WITHIN_S,
            baud=cfg.controller.baud,
            parity=cfg.controller.parity,
            is_enough=lambda: watch.is_complete,
        )
    except PortError as err:
        yield Finding("controller.port", "fail", str(err), "edge-runtime io serial shows who uses it")
        return
    state = watch.state()
    yield from _echo(watch.adapter_problem)
    if watch.problem:
        fix = "the sentence names it; edge-runtime io plc watches what comes"
        yield Finding("controller.link", "fail", watch.problem, fix)
        return
    what = "register map" if cfg.controller.protocol == "modbus" else "protocol"
    yield Finding("controller.link", "ok", f"answers, {what} {state['release_version']} as this release")
    yield from _inputs(_blocking(state))


def _echo(problem: str) -> Iterator[Finding]:
    if problem:
        what, _, fix = problem.partition(": ")
        yield Finding("controller.adapter", "warn", what, fix)


def _blocking(state: dict[str, Any]) -> list[str]:
    flags = state.get("flags") or state.get("blocks", {}).get("PLC", {}).get("control", [])
    return [name.upper() for name in flags]


def _inputs(names: list[str]) -> Iterator[Finding]:
    faults = [block for flag, block in WHAT_BLOCKS.items() if flag.name in names]
    for block in faults:
        yield Finding("controller.inputs", "fail", block.what, block.fix)
    if not faults:
        yield Finding("controller.inputs", "ok", "nothing stands in the way of a reject")
