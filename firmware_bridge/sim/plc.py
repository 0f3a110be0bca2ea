"""The simulated PLC: the firmware's core with its Modbus map, as unit for a box that polls, or polling the box itself.

`make_plc` is what `ControllerSim` takes in place of a controller. `PlcSim` is the same on a belt in the caller's time,
to wire against: a test moves it, `tools/sim/plc` paces it to the wall clock. Its truth is kept apart from the core:
where the gate stood when a part was at it, and what verdict was on the wire for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from firmware_bridge.modbus.client import Answered, RtuClient
from firmware_bridge.modbus.registers import BOX, PLC, SETUP, Block, BoxBlock, MapError, SetupBlock, VerdictCode
from firmware_bridge.modbus.rtu import MS, Line, read_request, write_request
from firmware_bridge.reject.controller import MODBUS_BAUD, MODBUS_UNIT, Controller, Transport
from firmware_bridge.reject.messages import EventKind, EventMsg
from firmware_bridge.sim.belt import Belt, BeltFaults, Fact, Parts
from firmware_bridge.sim.board import QUARTERS
from firmware_bridge.sim.host_board import HostBoard
from firmware_bridge.sim.uart import AT_ONCE_US
from firmware_bridge.wrap import U32, since32

Role = Literal["client", "server"]
POLL_NS = 10 * MS  # a short PLC scan
BLOCK_OUTCOMES = (EventKind.PASSED, EventKind.FIRED, EventKind.DEFAULTED, EventKind.OVERFLOW)


def make_plc(
    role: Role,
    unit: int = MODBUS_UNIT,
    line: Line | None = None,
    *,
    echo: bool = False,
    setup: SetupBlock | None = None,
) -> Callable[..., Controller]:
    """role: of the PLC; the box has the other one. unit: the server's. echo: as client, the adapter hears itself.

    setup: how the machine is built, as client; None: read from the box, once, before anything else.
    """
    line = line or Line(MODBUS_BAUD)
    if role == "server":
        return partial(Controller, transport=Transport.MODBUS, unit=unit, baud=line.baud)
    return partial(PollingPlc, box_unit=unit, line=line, echo=echo, setup=setup)


class PollingPlc(Controller):
    """A PLC program around the core: it asks the box for its block and writes its own there, in turn."""

    def __init__(
        self,
        boot_id: int,
        now_us: int,
        *,
        box_unit: int,
        line: Line,
        echo: bool,
        setup: SetupBlock | None,
        **words: Any,
    ) -> None:
        super().__init__(boot_id, now_us, transport=Transport.MODBUS, **words)
        self._box_unit, self._client = box_unit, RtuClient(line, echo=echo)
        self._last_us, self._now_ns = now_us, 0
        self._has_setup = setup is not None and self.write(SETUP.base, setup.pack(), now_us) == 0
        self._asked: Block | None = None  # read from the box; None: our own is written there
        self._next_ns = 0
        self.poll_errors = 0

    def on_bytes(self, data: bytes, now_us: int) -> None:
        self._pass_until(now_us)
        self._client.feed(data, self._now_ns)
        self._scan(now_us)

    def on_time(self, now_us: int) -> None:
        super().on_time(now_us)
        self._pass_until(now_us)
        self._scan(now_us)

    def take_frames(self) -> list[bytes]:
        out = self._client.take_output()
        return [out] if out else []

    def _pass_until(self, now_us: int) -> None:
        self._now_ns += 1000 * max(0, since32(now_us, self._last_us))
        self._last_us = now_us

    def _scan(self, now_us: int) -> None:
        self._client.tick(self._now_ns)
        answer = self._client.take_answer()
        if isinstance(answer, Answered):
            self._take(answer.values, now_us)
        elif answer is not None:
            self.poll_errors += 1
        if self._client.is_free(self._now_ns) and self._now_ns >= self._next_ns:
            self._ask()

    def _take(self, values: tuple[int, ...], now_us: int) -> None:
        block = self._asked
        if block is not None:
            is_good = self.write(block.base, values, now_us) == 0
            self._has_setup |= is_good and block is SETUP

    def _ask(self) -> None:
        if not self._has_setup:
            self._asked = SETUP
        elif self._asked is None:
            self._asked = BOX
        else:
            self._asked = None
        if self._asked is None:
            request = write_request(self._box_unit, PLC.base, self.read(PLC.base, PLC.size)[1])
        else:
            request = read_request(self._box_unit, self._asked.base, self._asked.size)
            self._next_ns = self._now_ns + POLL_NS
        self._client.ask(request, self._now_ns)


@dataclass(slots=True)
class Part:
    """What happened to one part."""

    quarter: int  # of the belt, at the eye
    gate: int | None  # the same, at the gate
    verdict: VerdictCode | None = None  # the first one seen on the wire before its decide point
    outcome: EventKind | None = None  # as the core tells it
    pulse_error: int | None = None  # counts from where its pulse belongs
    is_removed: bool | None = None  # whether the gate was open when it stood there


class PlcSim:
    """Belt, eye, gate and core. `turn` is called about each millisecond with what came from the box."""

    def __init__(
        self,
        parts: Parts,
        role: Role,
        unit: int = MODBUS_UNIT,
        line: Line | None = None,
        *,
        echo: bool = False,
        setup: SetupBlock | None = None,
        boot_id: int = 1,
    ) -> None:
        make = make_plc(role, unit, line, echo=echo, setup=setup)
        self._board = HostBoard(
            encoder=parts.first_count & U32, boot_id=boot_id, make=make, observer=self._observe, byte_us=AT_ONCE_US
        )
        self._belt = Belt(self._board, parts, self._gate_counts, faults=BeltFaults())
        self.parts: dict[int, Part] = {}  # by id
        self.stray = 0
        self._zero_ns: int | None = None
        self._result_seq: int | None = None

    @property
    def is_over(self) -> bool:
        return self._belt.is_over

    def turn(self, data: bytes, now_ns: int) -> bytes:
        """Everything up to now; `data` is heard first. Returns bytes for the box."""
        if self._zero_ns is None:
            self._zero_ns = now_ns - round(self._board.now_us * 1000)
        self._belt.hear(data)
        self._run(0.0)  # what was heard is seen before the belt moves on, however late this turn comes
        self._run(max(0.0, (now_ns - self._zero_ns) / 1000 - self._board.now_us))
        return self._board.take()

    def truth(self) -> dict[str, int]:
        """missed: let through against its verdict, or without one; false: removed against its verdict in force."""
        done = [part for part in self.parts.values() if part.is_removed is not None]
        is_default = [part.outcome in (EventKind.DEFAULTED, EventKind.OVERFLOW, None) for part in done]
        judged = [part for part, default in zip(done, is_default, strict=True) if not default]
        errors = [abs(part.pulse_error) for part in done if part.pulse_error is not None]
        return {
            "parts": len(done),
            "accepted": sum(part.verdict == VerdictCode.ACCEPT for part in judged),
            "rejected": sum(part.verdict == VerdictCode.REJECT for part in judged),
            "defaulted": sum(is_default),
            "missed": sum(not part.is_removed and part.verdict != VerdictCode.ACCEPT for part in done),
            "false": sum(bool(part.is_removed) and part.verdict == VerdictCode.ACCEPT for part in judged),
            "stray": self.stray,
            "pulse_error_counts": max(errors, default=0),
        }

    def _run(self, us: float) -> None:
        for fact in self._belt.run(us):
            self._take(fact)
        self._see_box()

    def _gate_counts(self) -> int | None:
        config = self._board.controller.config
        return None if config is None else config.fire_counts

    def _observe(self, event: EventMsg) -> None:
        if event.event in BLOCK_OUTCOMES and event.part_id in self.parts:
            self.parts[event.part_id].outcome = event.event

    def _take(self, fact: Fact) -> None:
        match fact["ev"]:
            case "part":
                self.parts[fact["index"] + 1] = Part(fact["quarter"], fact["gate"])
            case "gone":
                self.parts[fact["index"] + 1].is_removed = fact["removed"]
            case "gate" if fact["on"]:
                self._on_pulse(fact["quarter"])

    def _on_pulse(self, quarter: int) -> None:
        there = [part for part in self.parts.values() if part.gate is not None]
        nearest = min(there, key=lambda part: abs(quarter - (part.gate or 0)), default=None)
        error = None if nearest is None else quarter // QUARTERS - (nearest.gate or 0) // QUARTERS
        if nearest is not None:
            nearest.pulse_error = error
        if error is None or abs(error) > 1:
            self.stray += 1

    def _see_box(self) -> None:
        """The verdict on the wire, as an onlooker reads it."""
        controller = self._board.controller
        _, words = controller.read(BOX.base, BOX.size)
        try:
            box = BoxBlock.unpack(words)
        except MapError:
            return
        config = controller.config
        if box.result_seq == self._result_seq or config is None:
            return
        self._result_seq = box.result_seq
        part = self.parts.get(box.part_id) if box.verdict else None
        limit = config.decide_counts * QUARTERS
        if part is not None and part.verdict is None and self._board.quarter < part.quarter + limit:
            part.verdict = VerdictCode(box.verdict)
