"""Fire one part on demand and measure it: the test of gate, encoder, wiring and setup that commissioning begins with.

First the round trip of questions that change nothing, then: arm, take the first part that breaks the eye, reject it,
wait for what the gate and the sensor behind it say, disarm. No other part is judged; they take the controller's
default, as they do whenever a box is silent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from edge_runtime.actuation.controller_link import open_link
from edge_runtime.commissioning.far_side import open_watch
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import DeviceError
from firmware_bridge.port import BridgePort
from firmware_bridge.reject.link_events import (
    GateConfirmed,
    LinkBlocked,
    LinkEvent,
    Outcome,
    Settled,
    Triggered,
    VerdictAnswered,
)
from firmware_bridge.serial_device import PortError
from firmware_bridge.watch_port import look
from firmware_bridge.wrap import since32

ARM_WITHIN_S = 5.0
OUTCOME_WITHIN_S = 10.0  # from the eye to the gate, on a slow belt
BEATS_WITHIN_S = 10.0
GOOD_COUNTS = 1  # the controller fires at the count; one is the encoder's own edge
MS = 1e6

Tell = Callable[[str], None]


class OneShot:
    """What happens to the first part after `aim`. `hear` is called on the port's thread."""

    def __init__(self, wants_confirm: bool) -> None:
        self.trigger: Triggered | None = None
        self.answer: VerdictAnswered | None = None
        self.settled: Settled | None = None
        self.is_confirmed: bool | None = None
        self.blocked = ""
        self._wants_confirm = wants_confirm
        self._port: BridgePort | None = None
        self._news = threading.Condition()

    def aim(self, port: BridgePort) -> None:
        with self._news:
            self._port = port

    def hear(self, event: LinkEvent) -> None:
        with self._news:
            self._take(event)
            self._news.notify_all()

    def wait(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        with self._news:
            return self._news.wait_for(is_true, timeout_s)

    @property
    def is_over(self) -> bool:
        settled = self.settled
        if settled is None:
            return False
        return not self._wants_confirm or self.is_confirmed is not None or settled.outcome is not Outcome.FIRED

    def _take(self, event: LinkEvent) -> None:
        ours = None if self.trigger is None else (self.trigger.boot_id, self.trigger.part_id)
        match event:
            case LinkBlocked():
                self.blocked = event.reason
            case Triggered() if ours is None and self._port is not None:
                self.trigger = event
                self._port.send_verdict(event.boot_id, event.part_id, True)
            case VerdictAnswered() if (event.boot_id, event.part_id) == ours:
                self.answer = event
            case Settled() if (event.boot_id, event.part_id) == ours:
                self.settled = event
            case GateConfirmed() if (event.boot_id, event.part_id) == ours:
                self.is_confirmed = event.is_confirmed


def round_trips(cfg: EdgeConfig, port: str, beats: int) -> dict[str, Any] | None:
    """Milliseconds from question to answer, over `beats` of them. None where the PLC asks. Raises DeviceError."""
    if cfg.controller.protocol == "modbus" and cfg.controller.role == "server":
        return None
    watch = open_watch(cfg.controller, cfg.decision.safe_action, beat_every_ns=0)
    try:
        look(
            port,
            watch,
            BEATS_WITHIN_S,
            baud=cfg.controller.baud,
            parity=cfg.controller.parity,
            is_enough=lambda: len(watch.trips_ns) >= beats,
        )
    except PortError as err:
        raise DeviceError(str(err)) from err
    trips = sorted(watch.trips_ns)
    if not trips:
        raise DeviceError(watch.problem or "the controller does not answer: check power, cable and [controller]")
    return {
        "n": len(trips),
        "p50": round(trips[len(trips) // 2] / MS, 3),
        "p99": round(trips[len(trips) * 99 // 100] / MS, 3),
    }


def fire_one(cfg: EdgeConfig, port_path: str, *, beats: int, wait_s: float, tell: Tell) -> dict[str, Any]:
    """Do it, and measure; see the module. `tell` is given what a person should do or know meanwhile.

    Raises DeviceError when there is nobody to do it with, or no part comes.
    """
    trips = round_trips(cfg, port_path, beats)
    shot = OneShot(wants_confirm=cfg.controller.confirm_counts > 0)
    port = BridgePort(
        port_path,
        open_link(cfg.controller, cfg.decision.safe_action),
        shot.hear,
        baud=cfg.controller.baud,
        parity=cfg.controller.parity,
    )
    try:
        port.start()
        port.set_armed(True)
        if not port.wait_armed(ARM_WITHIN_S):
            raise DeviceError(f"the controller cannot be armed: {shot.blocked or port.state()[1]}")
        shot.aim(port)
        tell(f"armed; waiting {wait_s:.0f} s for a part at the eye")
        if not shot.wait(lambda: shot.trigger is not None, wait_s):
            raise DeviceError(
                f"no part broke the photo-eye within {wait_s:.0f} s", "check the eye, and its input's level"
            )
        tell("a part is at the eye; its reject is on the way")
        shot.wait(lambda: shot.is_over, OUTCOME_WITHIN_S)
        port.set_armed(False)
        port.wait_disarmed(1.0)
    except PortError as err:
        raise DeviceError(str(err)) from err
    finally:
        port.stop()
    return _document(cfg, shot, trips)


def _document(cfg: EdgeConfig, shot: OneShot, trips: dict[str, Any] | None) -> dict[str, Any]:
    trigger, settled, answer = shot.trigger, shot.settled, shot.answer
    assert trigger is not None
    document: dict[str, Any] = {
        "boot_id": trigger.boot_id,
        "part": trigger.part_id,
        "outcome": settled.outcome.value if settled else "unknown",
        "answer": answer.answer.name.lower() if answer else None,
        "verdict_ms": round(answer.round_trip_ns / MS, 3) if answer else None,
        "beat_ms": trips,
        "eye_encoder": trigger.encoder,
        "expected_counts": cfg.controller.fire_counts,
        "is_confirmed": shot.is_confirmed,
        "has_confirm_sensor": cfg.controller.confirm_counts > 0,
    }
    if settled is not None:
        counts = since32(settled.encoder, trigger.encoder)
        document |= {
            "gate_encoder": settled.encoder,
            "eye_to_gate_counts": counts,
            "eye_to_gate_ms": round((settled.at_ns - trigger.at_ns) / MS, 1),
            "error_counts": counts - cfg.controller.fire_counts,
        }
    return {**document, "problem": _problem(document)}


def _problem(document: dict[str, Any]) -> str:
    """What is not as it should be, with the fix; empty when all is well."""
    if document["outcome"] == "defaulted":
        return (
            "the verdict was not in force at the point of decision and the part took the default: raise "
            "controller.decide_counts, or find out what delays the verdict (verdict_ms)"
        )
    if document["outcome"] != "fired":
        return (
            f"the controller did not say that it fired ({document['outcome']}): is the belt running, the encoder good?"
        )
    if abs(document["error_counts"]) > GOOD_COUNTS:
        return (
            f"the pulse was {document['error_counts']:+d} counts from controller.fire_counts: with a PLC, give its "
            "program the same distance; with our firmware, check the encoder's channels and shield"
        )
    if document["is_confirmed"] is False:
        return "the sensor behind the gate saw nothing: check air, valve, gate and controller.confirm_counts"
    if document["has_confirm_sensor"] and document["is_confirmed"] is None:
        return "nothing was heard of the sensor behind the gate: check its wiring and controller.confirm_counts"
    return ""
