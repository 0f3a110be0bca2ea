"""The book of parts that the host keeps from the controller's event log. No I/O, no clock, no wire.

Every part of which a trigger was heard ends in exactly one `Settled`. The outcome is unknown when the controller
restarted, or when its event was overwritten: either a later part is settled (parts reach the gate in order), or a BEAT
tells that the part is past the gate and that no event is outstanding. Parts whose trigger was overwritten are told as
`PartsMissed`, so that they can be counted, and are settled like all others; nobody may judge them.

Every method returns what it made known, in order.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.link_events import (
    EventsLost,
    GateConfirmed,
    InputChanged,
    LinkEvent,
    Outcome,
    PartsMissed,
    Settled,
    Triggered,
    Tripped,
)
from firmware_bridge.reject.messages import BeatR, EventKind, EventMsg, Flags
from firmware_bridge.wrap import U16, since16, since32

REMEMBERED = 4096  # settled parts kept, to tell a late verdict from an unknown part
MAX_AHEAD = 16  # events held back behind a hole in the sequence; the controller sends at most eight
MAX_MISSED = 1000  # missed parts told one by one; a box that was away for longer than that has other news
PAST_GATE_COUNTS = 64  # beyond the gate before a silent part is given up; the event is made at the gate itself

Key = tuple[int, int]  # boot id, part id

_OUTCOMES = {
    EventKind.PASSED: Outcome.PASSED,
    EventKind.FIRED: Outcome.FIRED,
    EventKind.DEFAULTED: Outcome.DEFAULTED,
}


@dataclass(slots=True)
class _Open:
    """A part heard of and not settled. For a missed one `encoder` is where the belt was when it had passed the eye."""

    encoder: int
    at_ns: int


class PartBook:
    """See the module.

    last_part: the newest part known of in the boot that will be heard first; None: parts before the first trigger heard
    are nobody's business.
    """

    def __init__(self, fire_counts: int, clocks: ClockRelation, counts: Counter[str], last_part: int | None) -> None:
        self._past_gate = fire_counts + PAST_GATE_COUNTS
        self._clocks = clocks
        self._counts = counts
        self._last_part = last_part
        self._last_eye_ns = 0
        self._expected: int | None = None  # sequence of the next event
        self._ahead: dict[int, tuple[EventMsg, int]] = {}  # events that came before it, and when
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._settled: OrderedDict[Key, Outcome] = OrderedDict()
        self._news: list[LinkEvent] = []

    @property
    def open_parts(self) -> int:
        return len(self._open)

    @property
    def acknowledged(self) -> int | None:
        """Sequence of the last event taken; None before the first HELLO is answered."""
        return None if self._expected is None else (self._expected - 1) & U16

    def is_settled(self, key: Key) -> bool:
        return key in self._settled

    def restarted(self, now_ns: int) -> list[LinkEvent]:
        """The controller is another one, or restarted, and remembers nothing of the parts before."""
        for key, part in list(self._open.items()):
            self._settle(key, Outcome.UNKNOWN, part.encoder, now_ns)
        self._last_part = 0
        return self._tell()

    def new_log(self) -> None:
        """The next `note_oldest` says where the log begins."""
        self._expected = None
        self._ahead.clear()

    def note_oldest(self, oldest: int) -> list[LinkEvent]:
        """The oldest event the controller still holds: what comes before it and was not heard is gone."""
        if self._expected is None:
            self._expected = oldest
        lost = since16(oldest, self._expected)
        if lost > 0:
            self._counts["events_lost"] += lost
            self._news.append(EventsLost(lost))
            self._expected = oldest
            self._catch_up()
        return self._tell()

    def event(self, event: EventMsg, now_ns: int) -> list[LinkEvent]:
        """One event from the wire: the next, a repeat, or one from behind a hole."""
        if self._expected is None:
            return []
        ahead = since16(event.seq, self._expected)
        if not 0 <= ahead < MAX_AHEAD or event.seq in self._ahead:
            self._counts["events_again"] += 1
            return []
        self._ahead[event.seq] = (event, now_ns)
        self._catch_up()
        return self._tell()

    def beat(self, beat: BeatR, now_ns: int) -> list[LinkEvent]:
        """What a beat tells about parts past the gate of which no event is outstanding: nobody ever will."""
        if self._expected is None or since16(self._expected, beat.next_event) < 0:
            return []
        self._miss_until(beat.boot_id, beat.next_part, beat.encoder, now_ns)
        for key, part in list(self._open.items()):
            if since32(beat.encoder, part.encoder) > self._past_gate:
                self._settle(key, Outcome.UNKNOWN, part.encoder, now_ns)
        return self._tell()

    def _tell(self) -> list[LinkEvent]:
        news, self._news = self._news, []
        return news

    def _catch_up(self) -> None:
        """Take the events that are next in sequence; those behind a hole wait until it is filled or given up."""
        assert self._expected is not None
        for seq in [seq for seq in self._ahead if since16(seq, self._expected) < 0]:
            del self._ahead[seq]
        while (entry := self._ahead.pop(self._expected, None)) is not None:
            self._expected = (self._expected + 1) & U16
            self._counts["events"] += 1
            self._take(*entry)

    def _take(self, event: EventMsg, now_ns: int) -> None:
        related_ns = self._clocks.host_ns(event.time_us, now_ns)
        at_ns = now_ns if related_ns is None else related_ns
        key = (event.boot_id, event.part_id)
        match event.event:
            case EventKind.TRIGGER:
                self._triggered(key, event.encoder, at_ns, related_ns is not None)
            case EventKind.PASSED | EventKind.FIRED | EventKind.DEFAULTED:
                self._at_gate(key, _OUTCOMES[event.event], event.encoder, at_ns)
            case EventKind.CONFIRMED | EventKind.UNCONFIRMED:
                self._news.append(GateConfirmed(*key, event.event is EventKind.CONFIRMED))
            case EventKind.WATCHDOG:
                self._news.append(Tripped("watchdog", at_ns))
            case EventKind.OVERFLOW:
                self._triggered(key, event.encoder, at_ns, related_ns is not None)
                self._settle(key, Outcome.DEFAULTED, event.encoder, at_ns)  # the gate is held open for it
                self._news.append(Tripped("overflow", at_ns))

            case EventKind.INPUT:
                self._input(Flags(event.part_id), at_ns)

    def _input(self, flags: Flags, at_ns: int) -> None:
        self._news.append(
            InputChanged(
                Flags.BIN_FULL in flags, Flags.AIR_LOW in flags, Flags.ENCODER_LOST in flags,
                Flags.BELT_REVERSED in flags, at_ns,
            )
        )  # fmt: skip

    def _triggered(self, key: Key, encoder: int, at_ns: int, is_related: bool) -> None:
        if key in self._settled or key in self._open:
            return
        self._miss_until(*key, encoder, at_ns)
        self._last_part, self._last_eye_ns = key[1], at_ns
        self._open[key] = _Open(encoder, at_ns)
        self._news.append(Triggered(*key, encoder, at_ns, is_related))

    def _miss_until(self, boot_id: int, part_id: int, encoder: int, before_ns: int) -> None:
        """Parts after the last one heard of and before `part_id` passed the eye before `encoder`; nobody told us."""
        if self._last_part is None or since32(part_id, self._last_part) <= 1:
            return
        last = part_id - 1
        count = last - self._last_part
        first = last - min(count, MAX_MISSED) + 1
        self._counts["parts_missed"] += count
        self._last_part = last
        before_ns = min(before_ns, self._last_eye_ns or before_ns)
        for missed in range(first, last + 1):
            self._open[boot_id, missed] = _Open(encoder, before_ns)
        self._news.append(PartsMissed(boot_id, first, last, count - (last - first + 1), before_ns))

    def _at_gate(self, key: Key, outcome: Outcome, encoder: int, at_ns: int) -> None:
        boot_id, part_id = key
        self._miss_until(boot_id, part_id + 1, encoder, at_ns)
        for other, part in list(self._open.items()):
            if other[0] == boot_id and since32(other[1], part_id) < 0:  # parts reach the gate in order
                self._settle(other, Outcome.UNKNOWN, part.encoder, at_ns)
        self._settle(key, outcome, encoder, at_ns)

    def _settle(self, key: Key, outcome: Outcome, encoder: int, at_ns: int) -> None:
        self._open.pop(key, None)
        if key in self._settled:
            return
        self._settled[key] = outcome
        while len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)
        self._counts[f"outcome_{outcome}"] += 1
        self._news.append(Settled(*key, outcome, encoder, at_ns))
