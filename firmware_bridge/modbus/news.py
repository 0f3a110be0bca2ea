"""What a PLC's block tells that the one before it did not: triggers and outcomes, each once and in order.

Pure: block in, events out, in the form that `part_book` takes. A sequence that stands still is no news, however often
the block is read or written. More triggers than the ring holds leave a gap in part ids, which the part book tells as
missed parts; more outcomes than the ring holds are counted in `lost_outcomes`.
"""

from __future__ import annotations

from collections import Counter, deque

from firmware_bridge.modbus.registers import RING, OutcomeCode, PlcBlock
from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.messages import EventKind, EventMsg
from firmware_bridge.wrap import U16, U32, since16, since32

NODES = 64  # polls remembered; 0.6 s at one each 10 ms
SLACK_NS = 2_000_000  # a poll that took this much longer than the best one says little of when the counts were true
MAX_GAP_NS = 200_000_000  # unless nothing better was heard for so long

MAX_BEHIND = 0x7FFF  # half of what a sequence counts: more could not be told from none


class BeltRelation(ClockRelation):
    """Encoder counts (u32, wrapping) to host nanoseconds: the controller's clock is its belt.

    Each poll says where the belt was, somewhere between request and reply. A count is placed between the two polls
    around it, in proportion; no line through many of them, because belts stop and start. Polls that took long are left
    out, as outliers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._nodes: deque[tuple[int, int]] = deque(maxlen=NODES)  # count, host ns
        self._trips: deque[int] = deque(maxlen=NODES)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def best_round_trip_ns(self) -> int | None:
        return min(self._trips, default=None)

    def reset(self) -> None:
        self._nodes.clear()
        self._trips.clear()

    def add(self, time_us: int, sent_ns: int, received_ns: int) -> None:
        """The belt was at count `time_us` between the two times."""
        if received_ns < sent_ns:
            return
        trip_ns = received_ns - sent_ns
        self._trips.append(trip_ns)
        is_slow = trip_ns > min(self._trips) * 3 // 2 + SLACK_NS
        at_ns = (sent_ns + received_ns) // 2
        if self._nodes and is_slow and at_ns - self._nodes[-1][1] < MAX_GAP_NS:
            return
        self._nodes.append((time_us, at_ns))

    def host_ns(self, time_us: int, now_ns: int) -> int | None:
        """When the belt was last at count `time_us`; None when no two polls are around it."""
        nodes = self._nodes
        for later, earlier in zip(reversed(nodes), list(reversed(nodes))[1:], strict=False):
            moved = since32(later[0], earlier[0])
            into = since32(time_us, earlier[0])
            if moved and 0 <= into / moved <= 1:
                return min(now_ns, earlier[1] + (later[1] - earlier[1]) * into // moved)
        return None


class PlcNews:
    """See the module. One instance follows one PLC."""

    def __init__(self, counts: Counter[str]) -> None:
        self.lost_outcomes = 0  # since last asked; the caller sets it back
        self._counts = counts
        self._trigger_seq = 0
        self._outcome_seq = 0
        self._event_seq = 0

    @property
    def trigger_seq(self) -> int:
        """Up to here triggers were taken."""
        return self._trigger_seq

    @property
    def event_seq(self) -> int:
        """Number that the next event will have."""
        return self._event_seq

    def begin(self, block: PlcBlock, last_part: int) -> None:
        """Triggers after part `last_part` are news; outcomes only from here on."""
        behind = max(0, min(MAX_BEHIND, since32(block.part_id, last_part)))
        self._trigger_seq = (block.trigger_seq - behind) & U16
        self._outcome_seq = block.outcome_seq

    def restart(self) -> None:
        """The PLC started anew: all that it will tell is news."""
        self._trigger_seq = self._outcome_seq = 0

    def is_stale(self, block: PlcBlock) -> bool:
        """Whether the block is older than what was taken already."""
        return since16(block.trigger_seq, self._trigger_seq) < 0 or since16(block.outcome_seq, self._outcome_seq) < 0

    def take(self, block: PlcBlock) -> list[EventMsg]:
        """The events that are new: triggers first, because a part is seen before it is settled."""
        return self._triggers(block) + self._outcomes(block)

    def _triggers(self, block: PlcBlock) -> list[EventMsg]:
        new = since16(block.trigger_seq, self._trigger_seq)
        self._trigger_seq = block.trigger_seq
        if not new:
            return []
        part, encoder = block.part_id, block.encoder
        found = [(part, encoder)]
        for back in range(1, min(new, RING)):  # the ring says nothing of the newest that the block does not
            part_lo, encoder_lo = block.triggers[(block.trigger_seq - back) % RING]
            step = (part - part_lo) & U16
            if not 0 < step <= RING:
                self._counts["ring_holes"] += 1  # not filled, or overwritten: the part book finds the gap
                break
            part = (part - step) & U32
            encoder = _near(encoder, encoder_lo)
            found.append((part, encoder))
        return [self._event(block, EventKind.TRIGGER, *entry) for entry in reversed(found)]

    def _outcomes(self, block: PlcBlock) -> list[EventMsg]:
        new = since16(block.outcome_seq, self._outcome_seq)
        self._outcome_seq = block.outcome_seq
        self.lost_outcomes += max(0, new - RING)
        events = []
        for back in range(min(new, RING) - 1, -1, -1):
            part_lo, outcome, encoder_lo = block.outcomes[(block.outcome_seq - back) % RING]
            if outcome not in OutcomeCode._value2member_map_:
                self._counts["ring_holes"] += 1
                continue
            part = block.part_id - ((block.part_id - part_lo) & U16)
            if outcome == OutcomeCode.WATCHDOG:
                part = 0
            elif outcome == OutcomeCode.INPUT:
                part = part_lo  # no part: the flags
            elif part <= 0 and block.part_id < U16:  # a part that never was
                self._counts["ring_holes"] += 1
                continue
            events.append(self._event(block, EventKind(outcome), part & U32, _near(block.encoder_now, encoder_lo)))
        return events

    def _event(self, block: PlcBlock, kind: EventKind, part_id: int, encoder: int) -> EventMsg:
        """The time of the event is its count: see BeltRelation."""
        event = EventMsg(block.boot_id, self._event_seq, kind, part_id, encoder, encoder)
        self._event_seq = (self._event_seq + 1) & U16
        return event


def _near(encoder: int, low: int) -> int:
    """The count with these low 16 bits that is nearest to `encoder`."""
    return (encoder + since16(low, encoder)) & U32
