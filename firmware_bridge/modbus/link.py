"""The host's side of a PLC on Modbus RTU, with the same face and the same events as `link.Link`.

Verdicts are handed over one at a time: a new `result_seq` with the part id, until the PLC's `result_ack` has reached
it. Everything in the blocks is a level, and edges are changes of a sequence, so that a block read or written twice does
nothing. A result is only shown after the PLC's block was read since the last one, and a PLC that restarted takes the
first `result_seq` it sees as done: what was meant for a part of an earlier boot reaches nobody.

The way up: a block with our map id and version and a heartbeat that moves; the setup, where the far side is our
firmware; then ARMED is shown and ENABLE awaited. After a trip ARMED is shown at 0 until TRIPPED is gone. What triggers
and outcomes mean for parts is kept in `part_book`, how blocks travel in `plc_sides`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from firmware_bridge.modbus.news import BeltRelation, PlcNews
from firmware_bridge.modbus.registers import (
    BOX,
    MAP_VERSION,
    PLC,
    BoxBlock,
    BoxStatus,
    MapError,
    PlcBlock,
    PlcControl,
    SetupBlock,
    VerdictCode,
)
from firmware_bridge.modbus.results import Result, Results
from firmware_bridge.modbus.rtu import MS, Line
from firmware_bridge.modbus.sides import BEAT_NS, POLL_NS, ClientSide, ServerSide, Side
from firmware_bridge.reject.link import GateSetup, Phase, what_blocks
from firmware_bridge.reject.link_events import (
    ControllerReset,
    EventsLost,
    LinkBlocked,
    LinkEvent,
    LinkLost,
    LinkRefused,
    LinkUp,
    Settled,
    Tripped,
)
from firmware_bridge.reject.messages import BeatR, Flags, Verdict
from firmware_bridge.reject.part_book import PartBook
from firmware_bridge.wrap import U16, U32

ROLES = ("client", "server")
STILL_PERIODS = 5  # a heartbeat that stands still for so many of its periods is that of a dead PLC
LOST_CYCLES = 4  # and not before so many polls, of which some may have been lost
GIVE_UP = 2  # times the way from eye to gate, after which a part of which nothing is heard is settled as unknown

ALL_CONTROL = int(~PlcControl(0))
STALE_RUN = 5  # blocks; a late one comes alone


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
        default_verdict=_CODES[setup.default],
        debounce_counts=setup.debounce_counts,
        inputs_mask=int(setup.inputs),
    )


_CODES = {Verdict.NONE: VerdictCode.NONE, Verdict.ACCEPT: VerdictCode.ACCEPT, Verdict.REJECT: VerdictCode.REJECT}


class PlcLink:
    """See the module. Not thread-safe: one caller at a time.

    role: "client" when the box polls, "server" when the PLC does. resume: as for `Link`.
    """

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
        self.setup = setup
        self.phase = Phase.CLOSED
        self.detail = "port closed"
        self.counts: Counter[str] = Counter()
        self.clocks = BeltRelation()
        self.encoder: int | None = None
        self.control = PlcControl(0)
        self.boot_id: int | None
        self.boot_id, last_part = (None, None) if resume is None else resume
        line = Line(baud, parity, stop_bits)
        self.lost_after_ns = max(STILL_PERIODS * BEAT_NS, LOST_CYCLES * cycle_ns(line))
        self._resume_part = last_part
        self._book = PartBook(GIVE_UP * setup.fire_counts, self.clocks, self.counts, last_part)
        self._news = PlcNews(self.counts)
        block = setup_block(setup)
        self._side: Side = (
            ClientSide(unit, line, block, self, echo=rs485_echo, poll_ns=poll_ns)
            if role == "client"
            else ServerSide(unit, line, block, self, echo=rs485_echo)
        )
        self._wants_armed = False
        self._wants_hold = False
        self._events: list[LinkEvent] = []
        self._has_met = False  # any block of any boot, in this process
        self._beat: int | None = None  # the PLC's, since the port was opened
        self._alive_ns = 0
        self._now_ns = 0
        self._trouble = ""
        self._stale_run = 0
        self._told_refusal = ""
        self._told_block = ""
        self._up_ns = 0
        self._was_up = False  # armed, and no trip told since
        self._results = Results(self.counts, setup.default)

    # What a caller sees

    @property
    def is_armed(self) -> bool:
        return self.phase is Phase.UP

    @property
    def flags(self) -> Flags:
        """The PLC's state in the words of the controller protocol, bit by bit the same."""
        return Flags(int(self.control))

    @property
    def open_parts(self) -> int:
        """Parts heard of and not settled."""
        return self._book.open_parts

    @property
    def pending_verdicts(self) -> int:
        return len(self._results)

    def is_settled(self, boot_id: int, part_id: int) -> bool:
        return self._book.is_settled((boot_id, part_id))

    @property
    def wire_counts(self) -> dict[str, int]:
        return self._side.wire_counts()

    @property
    def adapter_problem(self) -> str:
        """What to set when the RS-485 adapter is not as the station says; the link works all the same."""
        return self._side.adapter_problem

    def take_output(self) -> bytes:
        """Bytes for the wire."""
        return self._side.take_output()

    def take_events(self) -> list[LinkEvent]:
        events, self._events = self._events, []
        return events

    def next_due_ns(self) -> int:
        """When `tick` will have something to do."""
        if self.phase is Phase.CLOSED:
            return self._now_ns + 3600 * 1000 * MS
        due = self._side.next_due_ns(self._now_ns)
        return min(due, self._alive_ns + self.lost_after_ns) if self._is_talking else due

    # Inputs

    def opened(self, now_ns: int) -> None:
        """A port is open; nothing is known of who is there."""
        self._now_ns = now_ns
        self._beat = None
        self.phase, self.detail = Phase.HELLO, "no PLC answers"
        self._side.opened(now_ns)
        self._side.tick(now_ns)

    def closed(self, reason: str, now_ns: int) -> None:
        """The port is gone."""
        self._now_ns = now_ns
        if self.phase is not Phase.CLOSED:
            self.counts["port_lost"] += 1
            self._lose(reason)
        self._side.take_output()
        self.phase, self.detail = Phase.CLOSED, reason

    def set_armed(self, wanted: bool, now_ns: int) -> None:
        """Ask the PLC to act on verdicts as soon as possible, and keep asking; or to stop."""
        self._wants_armed = wanted
        self._was_up = self._was_up and wanted
        if self._is_talking and self.phase is not Phase.CONFIG:
            self._see_arming(now_ns)
        self._go_on(now_ns)

    def set_hold(self, wanted: bool, now_ns: int) -> None:
        """Ask the machine for a controlled hold of the feed, or let it go on. A level in the box block."""
        self._wants_hold = wanted
        self._go_on(now_ns)

    def submit(
        self, boot_id: int, part_id: int, reject: bool, now_ns: int, *, reason: int = 0, confidence: int = 0
    ) -> None:
        """Tell the verdict of one part until it is acknowledged. The first one for a part wins.

        reason: 0..65535; confidence: 0..1000. Both are for display at the PLC.
        """
        key = (boot_id, part_id)
        if self._results.knows(key):
            self.counts["verdict_repeats"] += 1
            return
        self.counts["verdicts"] += 1
        if boot_id != self.boot_id or self._book.is_settled(key):
            self.counts["verdicts_hopeless"] += 1
            return
        verdict = Verdict.REJECT if reject else Verdict.ACCEPT
        self._results.add(Result(key, verdict, reason & U16, max(0, min(1000, confidence)), now_ns))
        self._go_on(now_ns)

    def feed(self, data: bytes, now_ns: int) -> None:
        """Bytes from the PLC."""
        if self.phase is Phase.CLOSED:
            return
        self._now_ns = now_ns
        self._side.feed(data, now_ns)

    def tick(self, now_ns: int) -> None:
        """Ask what is due, and notice a silent PLC."""
        if self.phase is Phase.CLOSED:
            return
        if self._is_talking and now_ns - self._alive_ns >= self.lost_after_ns:
            self._lose(self._trouble or f"the heartbeat of the PLC stands still for {self.lost_after_ns // MS} ms: "
                       "is its program running?")  # fmt: skip
            self._beat = None
        if self.phase is Phase.UP and self._results.give_up(now_ns):
            self.detail = (f"armed, but result {self._results.seq} was not acknowledged: the PLC must copy result_seq "
                           "to result_ack")  # fmt: skip
        self._go_on(now_ns)

    # For the side

    def box_block(self, now_ns: int) -> BoxBlock:
        """What the PLC shall see."""
        shown = self._results.shown
        if shown is not None and shown.key[0] != self.boot_id:
            shown = None
        return BoxBlock(
            heartbeat=(now_ns // BEAT_NS) & U16,
            status=int(self._status()),
            result_seq=self._results.seq,
            part_id=shown.key[1] if shown is not None else 0,
            verdict=_CODES[shown.verdict] if shown is not None else VerdictCode.NONE,
            reason=shown.reason if shown is not None else 0,
            confidence=shown.confidence if shown is not None else 0,
            ack_echo=self._results.acknowledged,
            host_echo=self._news.trigger_seq,
        )

    @property
    def may_tell(self) -> bool:
        return self._is_talking

    def on_told(self, block: BoxBlock, now_ns: int) -> None:
        """The PLC has the block."""
        self.counts["told"] += 1

    def on_trouble(self, text: str, now_ns: int) -> None:
        self._trouble = text
        if self.phase is Phase.HELLO:
            self.detail = text

    def on_refused(self, text: str) -> None:
        if self._is_talking:
            self._lose(text)
        self.phase, self.detail = Phase.REFUSED, text
        if text != self._told_refusal:
            self._told_refusal = text
            self._events.append(LinkRefused(text))

    def on_setup_settled(self, now_ns: int) -> None:
        if self.phase is Phase.CONFIG:
            self._see_arming(now_ns)

    def on_plc_block(self, words: Sequence[int], sent_ns: int, now_ns: int) -> None:
        """The PLC's block, as it was between the two times."""
        try:
            block = PlcBlock.unpack(words)
        except MapError as err:
            self.counts["torn_blocks"] += 1
            self.on_trouble(f"{err}: is it written in one piece, at {PLC.base}?", now_ns)
            return
        if block.map_version != MAP_VERSION:
            self.on_refused(f"the PLC has register map {block.map_version:04x}, this release {MAP_VERSION:04x}: set "
                            "its program to the table in REGISTERS.md of this release, or reflash the controller with "
                            "the firmware of this release")  # fmt: skip
            return
        self._trouble = ""
        self._meet(block, now_ns)
        if self._is_stale(block):
            return
        self.counts["blocks"] += 1
        self._see_heartbeat(block, now_ns)
        self.control = PlcControl(block.control & ALL_CONTROL)
        self.encoder = block.encoder_now
        self.clocks.add(block.encoder_now, sent_ns, now_ns)
        self._take_news(block, now_ns)
        answered = self._results.see(block, now_ns)
        if answered is not None:
            self._events.append(answered)
        if self._is_talking and self.phase is not Phase.CONFIG:
            self._see_arming(now_ns)
        self._hand_over(now_ns)

    # Following the PLC

    @property
    def _is_talking(self) -> bool:
        return self.phase in (Phase.CONFIG, Phase.READY, Phase.ARM, Phase.UP)

    def _go_on(self, now_ns: int) -> None:
        """Show the next verdict and let the side ask, if the line is free."""
        self._now_ns = now_ns
        if self.phase is not Phase.CLOSED:
            self._hand_over(now_ns)
            self._side.tick(now_ns)

    def _meet(self, block: PlcBlock, now_ns: int) -> None:
        """Notice the first block of all, and a PLC that restarted."""
        is_first = not self._has_met
        self._has_met = True
        if is_first:
            self._results.begin(block)
            if self._resume_part is None:  # what is on the belt already is nobody's business, what comes is
                self._book = PartBook(GIVE_UP * self.setup.fire_counts, self.clocks, self.counts, block.part_id)
            self._news.begin(block, block.part_id if self._resume_part is None else self._resume_part)
        if block.boot_id == self.boot_id:
            if is_first:
                self._open_log()
            return
        if self.boot_id is not None:
            self._forget_boot(block, now_ns)
        self.boot_id = block.boot_id
        self._open_log()

    def _open_log(self) -> None:
        self._book.new_log()
        self._book.note_oldest(self._news.event_seq)

    def _forget_boot(self, block: PlcBlock, now_ns: int) -> None:
        assert self.boot_id is not None
        self.counts["controller_resets"] += 1
        self._events.append(ControllerReset(self.boot_id, block.boot_id))
        self._pass_on(self._book.restarted(now_ns), now_ns)
        self._results.forget()
        self._was_up = False  # that it restarted says enough
        self._news.restart()
        self.clocks.reset()
        self._side.restarted()
        if self._is_talking:
            self.phase, self.detail = Phase.CONFIG, "the PLC restarted"

    def _is_stale(self, block: PlcBlock) -> bool:
        """A block from before the last one is dropped. When they all are, the PLC began anew and did not say so."""
        if not self._news.is_stale(block):
            self._stale_run = 0
            return False
        self.counts["stale_blocks"] += 1
        self._stale_run += 1
        if self._stale_run >= STALE_RUN:
            self.on_refused("the sequences of the PLC ran backwards under the same boot_id: its program must set "
                            "another boot_id at each start")  # fmt: skip
        return True

    def _see_heartbeat(self, block: PlcBlock, now_ns: int) -> None:
        """A block alone proves nothing: the communication module of a PLC answers for a program that stopped."""
        last, self._beat = self._beat, block.heartbeat
        if last is None or last == block.heartbeat:
            if not self._is_talking:
                self.detail = "the heartbeat of the PLC stands still: is its program running?"
            return
        self._alive_ns = now_ns
        if not self._is_talking:
            self.phase, self.detail = Phase.CONFIG, "configuring"
        if self.phase is Phase.CONFIG and self._side.has_setup:
            self._see_arming(now_ns)

    def _take_news(self, block: PlcBlock, now_ns: int) -> None:
        for event in self._news.take(block):
            self._pass_on(self._book.event(event, now_ns), now_ns)
        if self._news.lost_outcomes:
            self.counts["events_lost"] += self._news.lost_outcomes
            self._events.append(EventsLost(self._news.lost_outcomes))
            self._news.lost_outcomes = 0
        beat = BeatR(block.boot_id, 0, 0, block.encoder_now, (block.part_id + 1) & U32, 0, self._news.event_seq,
                     self.flags)  # fmt: skip
        self._pass_on(self._book.beat(beat, now_ns), now_ns)

    def _pass_on(self, news: list[LinkEvent], now_ns: int) -> None:
        """Tell what the part book found out, and do what follows from it here."""
        self._events += news
        for event in news:
            if isinstance(event, Settled):
                self._results.drop((event.boot_id, event.part_id))
            elif isinstance(event, Tripped) and event.at_ns >= self._up_ns:
                self._fell()

    # Arming

    def _status(self) -> BoxStatus:
        status = BoxStatus(0)
        if self.phase is Phase.REFUSED:
            return BoxStatus.FAULT
        if self._is_talking:
            status |= BoxStatus.READY
        if self.open_parts or self.pending_verdicts:
            status |= BoxStatus.BUSY
        if self._wants_hold:
            status |= BoxStatus.HOLD
        if self.phase in (Phase.ARM, Phase.UP) and self._wants_armed and not self._is_taking_trip_back:
            status |= BoxStatus.ARMED
        return status

    @property
    def _is_taking_trip_back(self) -> bool:
        """A lost encoder is not taken back by itself: somebody has to stop and start the line."""
        return PlcControl.TRIPPED in self.control and PlcControl.ENCODER_LOST not in self.control

    def _see_arming(self, now_ns: int) -> None:
        is_enabled = PlcControl.ENABLE in self.control and PlcControl.TRIPPED not in self.control
        if self._was_up and self._wants_armed and not is_enabled:  # also while we were away
            self._events.append(Tripped("disarmed", now_ns))
            self._fell()
        if is_enabled and self._wants_armed:
            self._now_up(now_ns)
        elif is_enabled or self._wants_armed:
            self.phase = Phase.ARM
            self.detail = "waiting for the PLC's ENABLE" if self._wants_armed else "disarming"
            if self._wants_armed:
                self._see_block()
        else:
            self.phase, self.detail = Phase.READY, "ready, not armed"

    def _see_block(self) -> None:
        """Somebody has to go there; it is armed as soon as the way is clear."""
        flags = self.flags
        what = what_blocks(flags)
        self.detail = what or self.detail
        if what and what != self._told_block:
            self._events.append(LinkBlocked(what))
        self._told_block = what

    def _now_up(self, now_ns: int) -> None:
        if self.phase is Phase.UP:
            return
        self.phase, self.detail = Phase.UP, "armed"
        self._told_refusal = self._told_block = ""
        self._was_up = True
        self._up_ns = now_ns
        self._events.append(LinkUp(self.boot_id or 0))

    def _fell(self) -> None:
        self.counts["trips"] += self._was_up
        self._was_up = False
        if self.phase is Phase.UP:
            self.phase, self.detail = Phase.ARM, "the PLC let itself fall into the safe state"

    def _lose(self, reason: str) -> None:
        self.counts["losses"] += 1
        if self._is_talking:
            self._events.append(LinkLost(reason))
        self.phase, self.detail = Phase.HELLO, reason

    def _hand_over(self, now_ns: int) -> None:
        if self.phase is Phase.UP:
            self._results.hand_over(now_ns)
