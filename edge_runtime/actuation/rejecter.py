"""The line's way to the reject controller: decisions go out, triggers and outcomes come in.

`start` connects and configures; nothing moves until `arm`, which is called when the whole line is ready, because an
armed controller is what tells the operator that the belt may run. A fault of the link never raises into the line: the
controller rejects what it hears nothing of, and its reports say so.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.actuation.controller_link import open_link
from edge_runtime.config.schema import ControllerConfig, SafeAction
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import Decision, Event, GateReport, Outcome, PartKey, Trigger, Verdict
from edge_runtime.flow.components import Health, State
from firmware_bridge.modbus.registers import Reason
from firmware_bridge.port import BridgePort
from firmware_bridge.reject import messages as wire
from firmware_bridge.reject.far_side import WHAT_BLOCKS, Phase, what_blocks
from firmware_bridge.reject.link_events import (
    ControllerReset,
    EventsLost,
    GateConfirmed,
    InputChanged,
    LinkBlocked,
    LinkEvent,
    LinkLost,
    LinkRefused,
    LinkUp,
    PartsMissed,
    Settled,
    Triggered,
    Tripped,
    VerdictAnswered,
)
from firmware_bridge.reject.messages import BLOCKING, Flags
from firmware_bridge.serial_device import PortError

log = logging.getLogger(__name__)

TROUBLES = (
    EventKind.LINK_LOST,
    EventKind.CONTROLLER_TRIPPED,
    EventKind.CONTROLLER_RESET,
    EventKind.CONTROLLER_EVENTS_LOST,
    EventKind.GATE_UNCONFIRMED,
)
REMEMBERED = 4096  # decided parts kept to recognise repeats

_INPUTS = {
    Flags.BIN_FULL: EventKind.INPUT_BIN_FULL,
    Flags.AIR_LOW: EventKind.INPUT_AIR_LOW,
    Flags.ENCODER_LOST: EventKind.INPUT_ENCODER_LOST,
    Flags.BELT_REVERSED: EventKind.INPUT_BELT_REVERSED,
}
_ANSWERS = {
    wire.Answer.LATE: EventKind.VERDICT_LATE,
    wire.Answer.UNKNOWN: EventKind.VERDICT_UNKNOWN,
    wire.Answer.CONFLICT: EventKind.VERDICT_CONFLICT,
    wire.Answer.NOT_ARMED: EventKind.VERDICT_NOT_ARMED,
}
_STATES = {
    Phase.UP: State.OK,
    Phase.REFUSED: State.FAILED,
    Phase.HELLO: State.DEGRADED,
    Phase.CLOSED: State.DEGRADED,
    Phase.CONFIG: State.DEGRADED,
    Phase.READY: State.DEGRADED,
    Phase.ARM: State.DEGRADED,
}


class Rejecter:
    """See the module. A sink of decisions and the source of triggers.

    The three callbacks are called on the port's thread and must be quick. `port` is the device or pty to open. `resume`
    is the last part an earlier process knew of, so that parts missed since are told.
    """

    name = "rejecter"

    def __init__(
        self,
        cfg: ControllerConfig,
        port: str,
        safe_action: SafeAction,
        clock: Clock,
        *,
        on_trigger: Callable[[Trigger], None],
        on_report: Callable[[GateReport], None],
        on_event: Callable[[Event], None],
        resume: PartKey | None = None,
    ) -> None:
        self._safe_action = safe_action
        self._clock = clock
        self._on_trigger = on_trigger
        self._on_report = on_report
        self._on_event = on_event
        self._link = open_link(cfg, safe_action, resume)
        self._port = BridgePort(port, self._link, self._take, baud=cfg.baud, parity=cfg.parity, clock=clock)
        self._inputs = Flags(0)  # what stands in the way of rejects now
        self._written: OrderedDict[PartKey, None] = OrderedDict()
        self._waiting: set[PartKey] = set()  # written and not settled
        self._unjudgeable: OrderedDict[PartKey, None] = OrderedDict()  # parts nobody saw pass: no verdict may go out
        self._counts: Counter[str] = Counter()
        self._is_started = False
        self._is_hold_asked = False

    # Component

    def start(self) -> None:
        """Open the port and configure the controller. Raises DeviceError when the controller cannot be worked with.

        A port that is not there yet, or a controller that does not answer yet, is no error: health is degraded until
        it comes.
        """
        try:
            self._port.start(must_open=False)
        except PortError as err:
            raise DeviceError(str(err)) from err
        self._is_started = True

    def stop(self) -> None:
        """Disarm and close the port. Parts still on their way get the controller's default."""
        if not self._is_started:
            return
        self._is_started = False
        self.disarm()
        self._port.stop()

    def health(self) -> Health:
        if not self._is_started:
            return Health(State.STOPPED)
        if not self._port.is_running:
            return Health(State.FAILED, "port thread ended")
        phase, detail = self._port.state()
        blocked = what_blocks(self._inputs)
        adapter = self._port.adapter_problem
        state = _STATES[phase]
        if phase is Phase.UP and (blocked or adapter):  # it is about to fall, or has a setting that somebody must mend
            state = State.DEGRADED
        return Health(state, "; ".join(filter(None, (blocked or detail, adapter))), self._port.progress_ns)

    def report(self) -> Mapping[str, Any]:
        inputs = [flag.name.lower() for flag in WHAT_BLOCKS if flag in self._inputs and flag.name]
        return {
            **self._port.report(),
            **self._counts,
            "waiting_for_outcome": len(self._waiting),
            "inputs": inputs,
            "is_hold_asked": self._is_hold_asked,
        }

    # For the line

    def arm(self, wait_s: float = 2.0) -> bool:
        """Let the belt run: the controller's healthy output goes on. True once it is armed; it stays wanted."""
        self._port.set_armed(True)
        return self._port.wait_armed(wait_s)

    def disarm(self, wait_s: float = 0.3) -> None:
        """Take the healthy output away. Parts between eye and gate get the default; `drain` first to spare them."""
        self._port.set_armed(False)
        self._port.wait_disarmed(wait_s)

    def hold(self, wanted: bool) -> None:
        """Ask the machine for a controlled hold of the feed, or let it go on. Parts on the belt are seen through.

        It is a request to the PLC, which decides how to stop, and never the emergency stop.
        """
        self._is_hold_asked = wanted
        self._port.set_hold(wanted)

    def write(self, decision: Decision) -> None:
        """Send one decision. Never raises and never blocks; the first one for a part wins."""
        key = decision.key
        if key in self._written:
            self._counts["write_repeats"] += 1
            return
        self._written[key] = None
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
        if key in self._unjudgeable:
            self._counts["unjudgeable"] += 1
            return
        self._waiting.add(key)
        self._port.send_verdict(
            key.boot_id,
            key.part_id,
            self._is_reject(decision.verdict),
            reason=Reason[decision.cause.name],
            confidence=round(1000 * max(0.0, min(1.0, decision.score or 0.0))),
        )
        if self._link.is_settled(key.boot_id, key.part_id):  # it was settled while we were writing
            self._waiting.discard(key)

    def drain(self, timeout_s: float) -> bool:
        """Wait until every part decided so far has its outcome."""
        return self._port.drain(timeout_s, lambda: not self._waiting)

    def _is_reject(self, verdict: Verdict) -> bool:
        if verdict is Verdict.UNSURE:
            return self._safe_action is not SafeAction.ACCEPT
        return verdict is not Verdict.ACCEPT

    # From the port's thread

    def _take(self, event: LinkEvent) -> None:
        match event:
            case Triggered():
                key = PartKey(event.boot_id, event.part_id)
                self._on_trigger(Trigger(key, event.encoder, event.at_ns))
            case Settled():
                self._settled(event)
            case PartsMissed():
                self._missed(event)
            case VerdictAnswered():
                self._answered(event)
            case LinkUp():
                self._tell(EventKind.LINK_UP, boot_id=event.boot_id)
            case LinkLost():
                self._tell(EventKind.LINK_LOST, reason=event.reason)
            case LinkRefused():
                self._tell(EventKind.LINK_REFUSED, reason=event.reason)
            case LinkBlocked():
                self._tell(EventKind.LINK_BLOCKED, reason=event.reason)
            case Tripped():
                self._tell(EventKind.CONTROLLER_TRIPPED, reason=event.reason)
            case InputChanged():
                self._changed(event)
            case EventsLost():
                self._tell(EventKind.CONTROLLER_EVENTS_LOST, count=event.count)
                self._see_inputs(self._link.flags & BLOCKING)  # one of them may have told of an input
            case ControllerReset():
                self._tell(EventKind.CONTROLLER_RESET, old_boot_id=event.old_boot_id, new_boot_id=event.new_boot_id)
                self._forget_boot(event.old_boot_id)
                self._inputs = Flags(0)  # it tells again what it finds
            case GateConfirmed():
                if not event.is_confirmed:
                    self._tell(EventKind.GATE_UNCONFIRMED, boot_id=event.boot_id, part_id=event.part_id)

    def _changed(self, event: InputChanged) -> None:
        """One event for each input that came or went."""
        levels = {
            Flags.BIN_FULL: event.bin_full,
            Flags.AIR_LOW: event.air_low,
            Flags.ENCODER_LOST: event.encoder_lost,
            Flags.BELT_REVERSED: event.belt_reversed,
        }
        self._see_inputs(Flags(sum(flag for flag, is_on in levels.items() if is_on)))

    def _see_inputs(self, now: Flags) -> None:
        before, self._inputs = self._inputs, now
        for flag in WHAT_BLOCKS:
            if flag in before ^ self._inputs:
                is_on = flag in self._inputs
                self._tell(_INPUTS[flag], on=is_on, what=str(WHAT_BLOCKS[flag]) if is_on else "good again")

    def _settled(self, event: Settled) -> None:
        key = PartKey(event.boot_id, event.part_id)
        self._waiting.discard(key)
        self._on_report(GateReport(key, Outcome(event.outcome.value), event.encoder, event.at_ns))

    def _missed(self, event: PartsMissed) -> None:
        """Parts that nobody saw pass get their rows all the same; what is decided of them is not sent."""
        self._tell(
            EventKind.CONTROLLER_PARTS_MISSED,
            boot_id=event.boot_id,
            first=event.first,
            last=event.last,
            untold=event.untold,
        )
        for part_id in range(event.first, event.last + 1):
            key = PartKey(event.boot_id, part_id)
            self._unjudgeable[key] = None
            self._on_trigger(Trigger(key, 0, event.before_ns, missed=True))
        while len(self._unjudgeable) > REMEMBERED:
            self._unjudgeable.popitem(last=False)

    def _answered(self, event: VerdictAnswered) -> None:
        if event.answer in (wire.Answer.STORED, wire.Answer.DUP):
            return
        self._tell(
            _ANSWERS[event.answer],
            boot_id=event.boot_id,
            part_id=event.part_id,
            in_force=event.in_force.name.lower(),
        )

    def _forget_boot(self, boot_id: int) -> None:
        """Nothing will be told of parts of an earlier boot of which the link never heard."""
        for key in [key for key in list(self._waiting) if key.boot_id == boot_id]:
            self._waiting.discard(key)

    def _tell(self, kind: EventKind, **detail: Any) -> None:
        self._counts[kind] += 1
        is_trouble = kind in TROUBLES and detail.get("reason") != "disarmed"  # as at each stop
        level = logging.WARNING if is_trouble else logging.INFO
        log.log(level, "%s %s", kind, " ".join(f"{name}={value}" for name, value in detail.items()))
        self._on_event(Event(kind, self._clock(), detail))
