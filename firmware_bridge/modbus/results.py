"""Verdicts on their way to a PLC: one is shown at a time, until its sequence comes back as `result_ack`. No I/O.

The sequence goes on over everything that happens here; a PLC that restarted takes the first one it sees as done.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from firmware_bridge.modbus.registers import PlcBlock, ResultAnswer
from firmware_bridge.modbus.rtu import MS
from firmware_bridge.reject.link_events import VerdictAnswered
from firmware_bridge.reject.messages import Answer, Verdict
from firmware_bridge.reject.part_book import Key
from firmware_bridge.reject.verdicts import MAX_PENDING, REMEMBERED
from firmware_bridge.wrap import U16

ACK_WAIT_NS = 1000 * MS  # many polls: a PLC program that does not acknowledge must not hold up all later verdicts

_ANSWERS = {
    ResultAnswer.NOT_TOLD: Answer.STORED,
    ResultAnswer.STORED: Answer.STORED,
    ResultAnswer.DUP: Answer.DUP,
    ResultAnswer.LATE: Answer.LATE,
    ResultAnswer.UNKNOWN: Answer.UNKNOWN,
    ResultAnswer.CONFLICT: Answer.CONFLICT,
}


@dataclass(frozen=True, slots=True)
class Result:
    """A verdict on its way."""

    key: Key
    verdict: Verdict
    reason: int
    confidence: int
    since_ns: int


class Results:
    """See the module. default: what a part gets whose verdict was late."""

    def __init__(self, counts: Counter[str], default: Verdict) -> None:
        self.seq = 0
        self.acknowledged = 0  # as the PLC said last
        self.shown: Result | None = None  # what stands in the registers, acknowledged or not
        self._counts = counts
        self._default = default
        self._open: Result | None = None  # shown and not acknowledged
        self._shown_ns = 0
        self._pending: OrderedDict[Key, Result] = OrderedDict()
        self._answered: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        """Verdicts not acknowledged yet."""
        return len(self._pending) + (self._open is not None)

    def knows(self, key: Key) -> bool:
        """Whether this part has its verdict already."""
        return key in self._pending or key in self._answered or (self._open is not None and self._open.key == key)

    def begin(self, block: PlcBlock) -> None:
        """The first block of all: the next result must be another one than what the PLC has acknowledged."""
        self.seq = self.acknowledged = block.result_ack

    def add(self, result: Result) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._pending.popitem(last=False)
            self._counts["verdicts_hopeless"] += 1
        self._pending[result.key] = result

    def drop(self, key: Key) -> None:
        """The part is settled."""
        if self._pending.pop(key, None) is not None:
            self._counts["verdicts_hopeless"] += 1

    def forget(self) -> None:
        """The PLC restarted: nothing can come of any of them."""
        self._counts["verdicts_hopeless"] += len(self)
        self._pending.clear()
        self._open = self.shown = None

    def hand_over(self, now_ns: int) -> None:
        """Show the next one, if the one before is done with."""
        if self._open is not None or not self._pending:
            return
        _, self._open = self._pending.popitem(last=False)
        self.shown, self._shown_ns = self._open, now_ns
        self.seq = (self.seq + 1) & U16 or 1

    def see(self, block: PlcBlock, now_ns: int) -> VerdictAnswered | None:
        """Whether the PLC has taken the one shown, and what became of it."""
        self.acknowledged = block.result_ack
        result = self._open
        if result is None or block.result_ack != self.seq:
            return None
        self._open = None
        self._answered[result.key] = None
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)
        told = block.result_answer
        answer = _ANSWERS[ResultAnswer(told)] if told in ResultAnswer._value2member_map_ else Answer.STORED
        self._counts[f"verdict_{answer.name.lower()}"] += 1
        return VerdictAnswered(*result.key, answer, self._in_force(answer, result.verdict), now_ns - result.since_ns)

    def give_up(self, now_ns: int) -> bool:
        """One that nobody acknowledges while the PLC is alive makes way for the next. True when it did."""
        if self._open is None or now_ns - self._shown_ns <= ACK_WAIT_NS:
            return False
        self._counts["verdicts_unacknowledged"] += 1
        self._open = None
        return True

    def _in_force(self, answer: Answer, verdict: Verdict) -> Verdict:
        match answer:
            case Answer.LATE:
                return self._default
            case Answer.CONFLICT:
                return Verdict.ACCEPT if verdict is Verdict.REJECT else Verdict.REJECT
            case Answer.UNKNOWN:
                return Verdict.NONE
            case _:
                return verdict
