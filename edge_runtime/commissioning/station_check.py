"""What a station file promises together that no single key shows: does the deadline fit the belt?"""

from __future__ import annotations

import math

from edge_runtime.capture.cameras.drivers import find_camera
from edge_runtime.config.schema import CameraConfig, ControllerConfig, EdgeConfig
from edge_runtime.core.errors import DeviceError
from firmware_bridge.modbus.link import LOST_CYCLES, cycle_ns
from firmware_bridge.modbus.rtu import Line
from firmware_bridge.reject.messages import BeatR, EventMsg, VerdictR, layout_of

FRAME_EXTRA = 4  # COBS, CRC and delimiter
BEATS_PER_S = 10


def remarks(cfg: EdgeConfig) -> list[str]:
    """Sentences a controls engineer should read. Empty when there is nothing to say."""
    notes = []
    travel_ms = 1000 * cfg.controller.decide_counts / cfg.world.counts_per_s
    if cfg.controller.driver == "sim" and cfg.decision.deadline_ms > travel_ms:
        notes.append(
            f"decision.deadline_ms = {cfg.decision.deadline_ms:.0f} is later than the point of decision, which a part "
            f"reaches after {travel_ms:.0f} ms (controller.decide_counts / world.counts_per_s): late parts take the "
            "controller's default"
        )
    pitch = cfg.world.counts_per_s / cfg.world.parts_per_s
    if cfg.controller.driver == "sim" and cfg.controller.pulse_counts >= 0.6 * pitch:
        notes.append(
            f"controller.pulse_counts = {cfg.controller.pulse_counts} reaches into the next part, parts are "
            f"{pitch:.0f} counts apart: the gate takes neighbours too; keep it under {0.6 * pitch:.0f}"
        )
    notes += _wire_remarks(cfg)
    if cfg.model.predictor == "remote" and not cfg.model.remote.may_leave:
        notes.append(
            "model.predictor = 'remote' asks nobody while model.remote.may_leave is false: pictures stay in the box"
        )
    if cfg.decision.stage_budget_ms > cfg.decision.deadline_ms:
        notes.append(
            "decision.stage_budget_ms is above decision.deadline_ms: a hung model is noticed after the deadline"
        )
    if cfg.decision.safe_action == "accept":
        notes.append("decision.safe_action = 'accept' lets parts pass that nobody judged; reject is the safe choice")
    if cfg.camera.driver != "v4l2":  # a device may be plugged in later
        notes += _camera_remarks(cfg.camera)
    if cfg.camera.driver == "sim" and cfg.controller.driver != "sim":
        notes.append("camera.driver = 'sim' shows parts of a simulated belt that the real controller does not see")
    return notes


def problems(cfg: EdgeConfig) -> list[str]:
    """What the station file itself says that cannot work, on this box, as it is: no part would be seen."""
    return _camera_remarks(cfg.camera) if cfg.camera.driver == "folder" else []


def _camera_remarks(cfg: CameraConfig) -> list[str]:
    try:
        find_camera(cfg)
    except DeviceError as err:
        return [str(err)]
    return []


def carried_parts_per_s(cfg: ControllerConfig) -> float:
    """Parts per second whose verdicts the serial line carries, when the controller answers at once."""
    if cfg.protocol == "modbus":
        return 1e9 / cycle_ns(Line(cfg.baud, cfg.parity))
    events = 2 + (cfg.confirm_counts > 0)  # at the eye, at the gate, behind it
    a_part = events * _on_wire(EventMsg) + _on_wire(VerdictR)
    return max(0.0, cfg.baud / 10 - BEATS_PER_S * _on_wire(BeatR)) / a_part


def _on_wire(message: type[EventMsg | VerdictR | BeatR]) -> int:
    return layout_of(message).size + FRAME_EXTRA


def _wire_remarks(cfg: EdgeConfig) -> list[str]:
    """Does the serial line carry the parts, and is the watchdog patient enough for it?"""
    controller, notes = cfg.controller, []
    carried = carried_parts_per_s(controller)
    if controller.driver == "sim" and cfg.world.parts_per_s > carried:
        notes.append(
            f"controller.baud = {controller.baud} carries the verdicts of {carried:.0f} parts/s, "
            f"world.parts_per_s = {cfg.world.parts_per_s:g} are more: the rest take the controller's default; raise "
            "the baud rate"
        )
    cycle_ms = cycle_ns(Line(controller.baud, controller.parity)) / 1e6
    if controller.protocol == "modbus" and controller.watchdog_ms < LOST_CYCLES * cycle_ms:
        notes.append(
            f"controller.watchdog_ms = {controller.watchdog_ms} is shorter than {LOST_CYCLES} polls of "
            f"{cycle_ms:.0f} ms at {controller.baud} bit/s: one lost frame trips the line; raise the baud rate, or the "
            f"watchdog to {math.ceil(LOST_CYCLES * cycle_ms)}"
        )
    return notes
