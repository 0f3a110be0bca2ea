"""The host's side of a PLC on Modbus RTU, with the same face and the same events as `reject.link.Link`.

Verdicts are handed over one at a time: a new `result_seq` with the part id, until the PLC's `result_ack` has reached
it. Everything in the blocks is a level, and edges are changes of a sequence, so that a block read or written twice does
nothing. A result is only shown after the PLC's block was read since the last one, and a PLC that restarted takes the
first `result_seq` it sees as done: what was meant for a part of an earlier boot reaches nobody.

The way up: a block with our map id and version and a heartbeat that moves; the setup, where the far side is our
firmware; then ARMED is shown and ENABLE awaited.

    sides     how the blocks travel: the box asks, or the PLC does
    desk      what the blocks mean, and who the PLC is
    arming    ARMED, ENABLE and TRIPPED
    results   the verdict that is shown, and those that wait
"""

from __future__ import annotations

from firmware_bridge.host_link import HostLink
from firmware_bridge.modbus.desk import CODES, PlcDesk
from firmware_bridge.modbus.news import BeltRelation
from firmware_bridge.modbus.registers import BOX, PLC, SetupBlock
from firmware_bridge.modbus.results import Result, Results
from firmware_bridge.modbus.rtu import MS, Line
from firmware_bridge.modbus.sides import BEAT_NS, POLL_NS, ClientSide, Desk, ServerSide, Side
from firmware_bridge.reject.far_side import FarSide, Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.messages import Verdict
from firmware_bridge.wrap import U16

ROLES = ("client", "server")
STILL_PERIODS = 5  # a heartbeat that stands still for so many of its periods is that of a dead PLC
LOST_CYCLES = 4  # and not before so many polls, of which some may have been lost
GIVE_UP = 2  # times the way from eye to gate, after which a part of which nothing is heard is settled as unknown


def cycle_ns(line: Line, turnaround_ns: int = 0) -> int:
    """One write of the box block and one read of the PLC block, as long as they take on the wire."""
    chars = (9 + 2 * BOX.size + 8) + (8 + 5 + 2 * PLC.size)
    return chars * line.char_ns + 4 * line.silence_ns + 2 * turnaround_ns


def setup_block(setup: GateSetup) -> SetupBlock:
    """The registers that say how the machine is built."""
    return SetupBlock(
        decide_counts=setup.decide_counts,
        fire_counts=setup.fire_counts,
        pulse_counts=setup.pulse_counts,
        confirm_counts=setup.confirm_counts,
        watchdog_ms=setup.watchdog_ms,
        max_on_ms=setup.max_on_ms,
        default_verdict=CODES[setup.default],
        debounce_counts=setup.debounce_counts,
        inputs_mask=int(setup.inputs),
    )


class PlcLink(HostLink):
    """See the module.

    role: "client" when the box polls, "server" when the PLC does. resume: see FarSide.
    """

    explains_silence = True

    def __init__(
        self,
        setup: GateSetup,
        *,
        role: str = "client",
        unit: int = 1,
        baud: int = 115_200,
        parity: str = "none",
        stop_bits: int = 1,
        rs485_echo: bool = False,
        resume: tuple[int, int] | None = None,
        poll_ns: int = POLL_NS,
    ) -> None:
        if role not in ROLES:
            raise ValueError(f"role {role!r}: one of {', '.join(ROLES)}")
        line, block = Line(baud, parity, stop_bits), setup_block(setup)

        def open_side(desk: Desk) -> Side:
            if role == "server":
                return ServerSide(unit, line, block, desk, echo=rs485_echo)
            return ClientSide(unit, line, block, desk, echo=rs485_echo, poll_ns=poll_ns)

        give_up_counts = GIVE_UP * setup.fire_counts
        super().__init__(setup, FarSide(give_up_counts, BeltRelation(), resume))
        self._results = Results(self.counts, setup.default)
        self.desk = PlcDesk(
            self.far,
            self._results,
            open_side=open_side,
            lost_after_ns=max(STILL_PERIODS * BEAT_NS, LOST_CYCLES * cycle_ns(line)),
            give_up_counts=give_up_counts,
            resume=resume,
        )
        self._side = self.desk.side
        self._now_ns = 0

    # What the owner sees

    @property
    def pending_verdicts(self) -> int:
        return len(self._results)

    @property
    def wire_counts(self) -> dict[str, int]:
        return self._side.wire_counts()

    @property
    def adapter_problem(self) -> str:
        return self._side.adapter_problem

    def take_output(self) -> bytes:
        return self._side.take_output()

    def next_due_ns(self) -> int:
        if self.phase is Phase.CLOSED:
            return self._now_ns + 3600 * 1000 * MS
        due = self._side.next_due_ns(self._now_ns)
        return min(due, self.desk.lost_ns) if self.far.is_talking else due

    # Inputs

    def opened(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self.desk.opened(now_ns)
        self._side.tick(now_ns)

    def closed(self, reason: str, now_ns: int) -> None:
        self._now_ns = now_ns
        self.far.closed(reason)
        self._side.take_output()

    def set_armed(self, wanted: bool, now_ns: int) -> None:
        """Ask the PLC to act on verdicts as soon as possible, and keep asking; or to stop."""
        self.desk.arming.set_armed(wanted, now_ns)
        self._go_on(now_ns)

    def set_hold(self, wanted: bool, now_ns: int) -> None:
        self.desk.arming.wants_hold = wanted
        self._go_on(now_ns)

    def submit(
        self, boot_id: int, part_id: int, reject: bool, now_ns: int, *, reason: int = 0, confidence: int = 0
    ) -> None:
        key = (boot_id, part_id)
        if self._results.knows(key):
            self.counts["verdict_repeats"] += 1
            return
        self.counts["verdicts"] += 1
        if boot_id != self.boot_id or self.far.book.is_settled(key):
            self.counts["verdicts_hopeless"] += 1
            return
        verdict = Verdict.REJECT if reject else Verdict.ACCEPT
        self._results.add(Result(key, verdict, reason & U16, max(0, min(1000, confidence)), now_ns))
        self._go_on(now_ns)

    def feed(self, data: bytes, now_ns: int) -> None:
        if self.phase is Phase.CLOSED:
            return
        self._now_ns = now_ns
        self._side.feed(data, now_ns)

    def tick(self, now_ns: int) -> None:
        if self.phase is Phase.CLOSED:
            return
        self.desk.tick(now_ns)
        self._go_on(now_ns)

    def _go_on(self, now_ns: int) -> None:
        """Show the next verdict and let the side ask, if the line is free."""
        self._now_ns = now_ns
        if self.phase is not Phase.CLOSED:
            self.desk.hand_over(now_ns)
            self._side.tick(now_ns)
