"""What the blocks of the register map mean: the PLC's is read here, the box's is filled. No I/O, no clock.

A block with our map id and version and a heartbeat that moves is a PLC that lives. One with another boot id is a PLC
that restarted, and what was under way is over. What it tells of triggers and outcomes goes to the part book, what it
says of itself to `arming`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from firmware_bridge.modbus.arming import Arming
from firmware_bridge.modbus.news import PlcNews
from firmware_bridge.modbus.registers import MAP_VERSION, PLC, BoxBlock, MapError, PlcBlock, PlcControl, VerdictCode
from firmware_bridge.modbus.results import Results
from firmware_bridge.modbus.rtu import MS
from firmware_bridge.modbus.sides import BEAT_NS, Desk, Side
from firmware_bridge.reject.far_side import FarSide, Phase
from firmware_bridge.reject.link_events import ControllerReset, EventsLost, LinkEvent, Settled, Tripped
from firmware_bridge.reject.messages import BeatR, Flags, Verdict
from firmware_bridge.reject.part_book import PartBook
from firmware_bridge.wrap import U16, U32

ALL_CONTROL = int(~PlcControl(0))
STALE_RUN = 5  # blocks; a late one comes alone
CODES = {Verdict.NONE: VerdictCode.NONE, Verdict.ACCEPT: VerdictCode.ACCEPT, Verdict.REJECT: VerdictCode.REJECT}


class PlcDesk:
    """See the module; the `Desk` of a side.

    open_side: makes the side that carries the blocks. lost_after_ns: without a heartbeat. give_up_counts, resume: see
    FarSide.
    """

    def __init__(
        self,
        far: FarSide,
        results: Results,
        *,
        open_side: Callable[[Desk], Side],
        lost_after_ns: int,
        give_up_counts: int,
        resume: tuple[int, int] | None,
    ) -> None:
        self.arming = Arming(far)
        self._far = far
        self._results = results
        self._news = PlcNews(far.counts)
        self._lost_after_ns = lost_after_ns
        self._give_up_counts = give_up_counts
        self._resume_part = None if resume is None else resume[1]
        self._has_met = False  # any block of any boot, in this process
        self._beat: int | None = None  # the PLC's, since the port was opened
        self._alive_ns = 0
        self._trouble = ""
        self._stale_run = 0
        self.side = open_side(self)

    # For the link

    def opened(self, now_ns: int) -> None:
        self._beat = None
        self._far.phase, self._far.detail = Phase.HELLO, "no PLC answers"
        self.side.opened(now_ns)

    @property
    def lost_ns(self) -> int:
        """When a PLC that is silent from now on is lost."""
        return self._alive_ns + self._lost_after_ns

    def tick(self, now_ns: int) -> None:
        """Notice a PLC that is silent, or that does not acknowledge."""
        far = self._far
        if far.is_talking and now_ns >= self.lost_ns:
            far.lost(self._trouble or f"the heartbeat of the PLC stands still for {self._lost_after_ns // MS} ms: "
                     "is its program running?")  # fmt: skip
            self._beat = None
        if far.phase is Phase.UP and self._results.give_up(now_ns):
            far.detail = (f"armed, but result {self._results.seq} was not acknowledged: the PLC must copy result_seq "
                          "to result_ack")  # fmt: skip

    def hand_over(self, now_ns: int) -> None:
        """Show the next verdict, if the PLC acts on verdicts and is done with the one before."""
        if self._far.phase is Phase.UP:
            self._results.hand_over(now_ns)

    # For the side

    def box_block(self, now_ns: int) -> BoxBlock:
        results, shown = self._results, self._results.shown
        if shown is not None and shown.key[0] != self._far.boot_id:
            shown = None
        return BoxBlock(
            heartbeat=(now_ns // BEAT_NS) & U16,
            status=int(self.arming.status(is_busy=bool(self._far.book.open_parts or len(results)))),
            result_seq=results.seq,
            part_id=shown.key[1] if shown is not None else 0,
            verdict=CODES[shown.verdict] if shown is not None else VerdictCode.NONE,
            reason=shown.reason if shown is not None else 0,
            confidence=shown.confidence if shown is not None else 0,
            ack_echo=results.acknowledged,
            host_echo=self._news.trigger_seq,
        )

    @property
    def may_tell(self) -> bool:
        return self._far.is_talking

    def on_told(self, block: BoxBlock, now_ns: int) -> None:
        self._far.counts["told"] += 1

    def on_trouble(self, text: str, now_ns: int) -> None:
        self._trouble = text
        if self._far.phase is Phase.HELLO:
            self._far.detail = text

    def on_refused(self, text: str) -> None:
        if self._far.is_talking:
            self._far.lost(text)
        self._far.refused(text)

    def on_setup_settled(self, now_ns: int) -> None:
        if self._far.phase is Phase.CONFIG:
            self.arming.see(now_ns)

    def on_plc_block(self, words: Sequence[int], sent_ns: int, now_ns: int) -> None:
        far = self._far
        try:
            block = PlcBlock.unpack(words)
        except MapError as err:
            far.counts["torn_blocks"] += 1
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
        far.counts["blocks"] += 1
        self._see_heartbeat(block, now_ns)
        self.arming.control = PlcControl(block.control & ALL_CONTROL)
        far.flags = Flags(int(self.arming.control))
        far.encoder = block.encoder_now
        far.clocks.add(block.encoder_now, sent_ns, now_ns)
        self._take_news(block, now_ns)
        answered = self._results.see(block, now_ns)
        if answered is not None:
            far.events.append(answered)
        if far.is_talking and far.phase is not Phase.CONFIG:
            self.arming.see(now_ns)
        self.hand_over(now_ns)

    # Following the PLC

    def _meet(self, block: PlcBlock, now_ns: int) -> None:
        """Notice the first block of all, and a PLC that restarted."""
        far = self._far
        is_first = not self._has_met
        self._has_met = True
        if is_first:
            self._results.begin(block)
            if self._resume_part is None:  # what is on the belt already is nobody's business, what comes is
                far.book = PartBook(self._give_up_counts, far.clocks, far.counts, block.part_id)
            self._news.begin(block, block.part_id if self._resume_part is None else self._resume_part)
        if block.boot_id == far.boot_id:
            if is_first:
                self._open_log()
            return
        if far.boot_id is not None:
            self._forget_boot(far.boot_id, block.boot_id, now_ns)
        far.boot_id = block.boot_id
        self._open_log()

    def _open_log(self) -> None:
        self._far.book.new_log()
        self._far.book.note_oldest(self._news.event_seq)

    def _forget_boot(self, before: int, now: int, now_ns: int) -> None:
        far = self._far
        far.counts["controller_resets"] += 1
        far.events.append(ControllerReset(before, now))
        self._pass_on(far.book.restarted(now_ns))
        self._results.forget()
        self.arming.restarted()
        self._news.restart()
        far.clocks.reset()
        self.side.restarted()
        if far.is_talking:
            far.phase, far.detail = Phase.CONFIG, "the PLC restarted"

    def _is_stale(self, block: PlcBlock) -> bool:
        """A block from before the last one is dropped. When they all are, the PLC began anew and did not say so."""
        if not self._news.is_stale(block):
            self._stale_run = 0
            return False
        self._far.counts["stale_blocks"] += 1
        self._stale_run += 1
        if self._stale_run >= STALE_RUN:
            self.on_refused("the sequences of the PLC ran backwards under the same boot_id: its program must set "
                            "another boot_id at each start")  # fmt: skip
        return True

    def _see_heartbeat(self, block: PlcBlock, now_ns: int) -> None:
        """A block alone proves nothing: the communication module of a PLC answers for a program that stopped."""
        far = self._far
        last, self._beat = self._beat, block.heartbeat
        if last is None or last == block.heartbeat:
            if not far.is_talking:
                far.detail = "the heartbeat of the PLC stands still: is its program running?"
            return
        self._alive_ns = now_ns
        if not far.is_talking:
            far.phase, far.detail = Phase.CONFIG, "configuring"
        if far.phase is Phase.CONFIG and self.side.has_setup:
            self.arming.see(now_ns)

    def _take_news(self, block: PlcBlock, now_ns: int) -> None:
        far = self._far
        for event in self._news.take(block):
            self._pass_on(far.book.event(event, now_ns))
        if self._news.lost_outcomes:
            far.counts["events_lost"] += self._news.lost_outcomes
            far.events.append(EventsLost(self._news.lost_outcomes))
            self._news.lost_outcomes = 0
        beat = BeatR(block.boot_id, 0, 0, block.encoder_now, (block.part_id + 1) & U32, 0, self._news.event_seq,
                     far.flags)  # fmt: skip
        self._pass_on(far.book.beat(beat, now_ns))

    def _pass_on(self, news: list[LinkEvent]) -> None:
        """Tell what the part book found out, and do what follows from it here."""
        self._far.events += news
        for event in news:
            if isinstance(event, Settled):
                self._results.drop((event.boot_id, event.part_id))
            elif isinstance(event, Tripped) and event.at_ns >= self._far.up_ns:
                self.arming.fell()
