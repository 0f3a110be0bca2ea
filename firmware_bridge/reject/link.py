"""The host's side of the reject controller as a pure state machine: bytes and `now_ns` in, bytes and events out.

    exchange   frames, and which question an answer belongs to
    way_up     HELLO, CONFIG, ARM, and again after a fall
    verdicts   kept by (boot id, part id), sent again until answered
    far_side   what is known of the controller; its part_book says what its events mean for parts

Here they are put together: once the way up has found somebody, BEATs ask each 100 ms how it goes.

Boot ids are assumed to differ from one start to the next; firmware counts them up in EEPROM.
"""

from __future__ import annotations

from firmware_bridge.host_link import HostLink
from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.exchange import Exchange
from firmware_bridge.reject.far_side import FarSide, Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import ControllerReset, LinkEvent, Settled, Tripped
from firmware_bridge.reject.messages import (
    PROTOCOL_VERSION,
    Beat,
    BeatR,
    Done,
    EvAck,
    EventMsg,
    HelloR,
    Verdict,
    VerdictR,
    WireError,
    hello_version,
    unpack,
)
from firmware_bridge.reject.times import BEAT_AGAIN_NS, BEAT_NS, LOST_AFTER_NS, MS
from firmware_bridge.reject.verdicts import Verdicts
from firmware_bridge.reject.way_up import WayUp


class Link(HostLink):
    """See the module. resume: see FarSide."""

    def __init__(
        self, setup: GateSetup, *, version: int = PROTOCOL_VERSION, resume: tuple[int, int] | None = None
    ) -> None:
        super().__init__(setup, FarSide(setup.fire_counts, ClockRelation(), resume))
        self._exchange = Exchange(self.counts)
        self._verdicts = Verdicts(self._exchange, self.counts)
        self._way_up = WayUp(setup, version, self.far, self._exchange, self._verdicts.send_all)
        self._beat_every_ns = min(BEAT_NS, setup.watchdog_ms * MS // 4)
        self._wants_hold = False
        self._beat_ns = 0  # of the next one
        self._heard_ns = 0
        self._must_ack = False

    # What the owner sees

    @property
    def pending_verdicts(self) -> int:
        return len(self._verdicts)

    @property
    def wire_counts(self) -> dict[str, int]:
        return self._exchange.wire_counts

    def take_output(self) -> bytes:
        return self._exchange.take_output()

    def next_due_ns(self) -> int:
        if self.phase is Phase.CLOSED:
            return self._heard_ns + 3600 * 1000 * MS
        due = [self._way_up.ask_ns] if self._way_up.is_asking else []
        if self.far.is_talking:
            due += [self._beat_ns, self._heard_ns + LOST_AFTER_NS]
        if self.phase is Phase.UP and (verdict_ns := self._verdicts.due_ns) is not None:
            due.append(verdict_ns)
        return min(due)

    # Inputs

    def opened(self, now_ns: int) -> None:
        self._exchange.opened()
        self._way_up.begin(now_ns)

    def closed(self, reason: str, now_ns: int) -> None:
        self.far.closed(reason)
        self._exchange.closed()
        self._heard_ns = now_ns

    def set_armed(self, wanted: bool, now_ns: int) -> None:
        self._way_up.set_armed(wanted, now_ns)

    def set_hold(self, wanted: bool, now_ns: int) -> None:
        self._wants_hold = wanted
        self._beat_ns = min(self._beat_ns, now_ns)

    def submit(
        self, boot_id: int, part_id: int, reject: bool, now_ns: int, *, reason: int = 0, confidence: int = 0
    ) -> None:
        """See HostLink. Frames have no room for reason and confidence."""
        key = (boot_id, part_id)
        if self._verdicts.knows(key):
            self.counts["verdict_repeats"] += 1
            return
        self.counts["verdicts"] += 1
        if boot_id != self.boot_id or self.far.book.is_settled(key):
            self.counts["verdicts_hopeless"] += 1
            return
        self._verdicts.add(key, Verdict.REJECT if reject else Verdict.ACCEPT, now_ns)
        if self.phase is Phase.UP:
            self._verdicts.send(key, now_ns)

    def feed(self, data: bytes, now_ns: int) -> None:
        for payload in self._exchange.receive(data):
            self._receive(payload, now_ns)
        acknowledged = self.far.book.acknowledged
        if self._must_ack and self.boot_id is not None and acknowledged is not None:
            self._exchange.send(EvAck(self.boot_id, acknowledged))
            self._must_ack = False

    def tick(self, now_ns: int) -> None:
        if self.phase is Phase.CLOSED:
            return
        if self.far.is_talking and now_ns - self._heard_ns >= LOST_AFTER_NS:
            self._way_up.lost(f"no answer for {LOST_AFTER_NS // MS} ms")
            self._way_up.begin(now_ns)
        self._way_up.tick(now_ns)
        if self.far.is_talking and now_ns >= self._beat_ns:
            assert self.boot_id is not None
            self._beat_ns = now_ns + min(BEAT_AGAIN_NS, self._beat_every_ns)
            self._exchange.send(Beat(self.boot_id, self._exchange.new_nonce(now_ns), self._wants_hold))
        if self.phase is Phase.UP:
            self._verdicts.send_due(now_ns)

    # Hearing

    def _receive(self, payload: bytes, now_ns: int) -> None:
        version = hello_version(payload)
        if version is not None and version != self._way_up.version:
            self._way_up.other_version(version)
            return
        try:
            message = unpack(payload)
        except WireError:
            self.counts["not_ours"] += 1
            return
        match message:
            case HelloR():
                self._on_hello(message, now_ns)
            case Done() | BeatR() | VerdictR() | EventMsg():
                self._on_talk(message, now_ns)
            case _:
                self.counts["not_ours"] += 1  # an echo of our own, as RS-485 adapters make

    def _on_talk(self, message: Done | BeatR | VerdictR | EventMsg, now_ns: int) -> None:
        if not self.far.is_talking:
            return
        if message.boot_id != self.boot_id:
            self._way_up.another_boot(now_ns)
            return
        self._heard_ns = now_ns
        match message:
            case Done():
                self._way_up.done(message, now_ns)
            case BeatR():
                self._on_beat(message, now_ns)
            case VerdictR():
                if (answered := self._verdicts.answered(message, now_ns)) is not None:
                    self.far.events.append(answered)
            case EventMsg():
                self._must_ack = True
                self._pass_on(self.far.book.event(message, now_ns), now_ns)

    def _pass_on(self, news: list[LinkEvent], now_ns: int) -> None:
        """Tell what the part book found out, and do what follows from it here."""
        self.far.events += news
        for event in news:
            if isinstance(event, Settled):
                self._verdicts.drop((event.boot_id, event.part_id))
            elif isinstance(event, Tripped) and event.at_ns >= self.far.up_ns:  # not one that an earlier ARM has healed
                self._way_up.fell(now_ns)

    def _on_hello(self, hello: HelloR, now_ns: int) -> None:
        sent_ns = self._exchange.asked_ns(hello.nonce)
        if sent_ns is None or self.phase not in (Phase.HELLO, Phase.REFUSED):
            return  # a late answer to an earlier HELLO
        self._heard_ns = now_ns
        if self.boot_id != hello.boot_id:
            self._new_boot(hello, now_ns)
        self.clocks.add(hello.time_us, sent_ns, now_ns)
        self._pass_on(self.far.book.note_oldest(hello.oldest_event), now_ns)
        self._must_ack = True
        self._beat_ns = now_ns
        self._way_up.met(hello, now_ns)

    def _new_boot(self, hello: HelloR, now_ns: int) -> None:
        far = self.far
        if far.boot_id is not None:
            far.counts["controller_resets"] += 1
            far.events.append(ControllerReset(far.boot_id, hello.boot_id))
            self._pass_on(far.book.restarted(now_ns), now_ns)
            self._verdicts.forget()
        far.boot_id = hello.boot_id
        far.book.new_log()
        far.clocks.reset()

    def _on_beat(self, beat: BeatR, now_ns: int) -> None:
        sent_ns = self._exchange.asked_ns(beat.nonce)
        if sent_ns is None:
            return
        self.counts["beats"] += 1
        self._beat_ns = now_ns + self._beat_every_ns
        self.far.encoder = beat.encoder
        self.clocks.add(beat.time_us, sent_ns, now_ns)
        self._pass_on(self.far.book.note_oldest(beat.oldest_event), now_ns)
        self._way_up.see_flags(beat.flags, sent_ns, now_ns)
        self._pass_on(self.far.book.beat(beat, now_ns), now_ns)
