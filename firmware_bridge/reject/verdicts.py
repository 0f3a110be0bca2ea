"""Verdicts on their way to a reject controller: each sent again until it is answered, or nothing can come of it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from firmware_bridge.reject.exchange import Exchange
from firmware_bridge.reject.link_events import VerdictAnswered
from firmware_bridge.reject.messages import Answer, Verdict, VerdictMsg, VerdictR
from firmware_bridge.reject.part_book import Key
from firmware_bridge.reject.times import VERDICT_AGAIN_NS

REMEMBERED = 4096  # answered verdicts kept to recognise repeats
MAX_PENDING = 1024  # verdicts waiting for a controller that is away; the oldest go first, their parts are past the gate


@dataclass(slots=True)
class _Pending:
    """A verdict not yet answered."""

    verdict: Verdict
    since_ns: int
    again_ns: int


class Verdicts:
    """See the module. Nothing is sent but by the methods that say so: only an armed controller takes verdicts."""

    def __init__(self, exchange: Exchange, counts: Counter[str]) -> None:
        self._exchange = exchange
        self._counts = counts
        self._pending: OrderedDict[Key, _Pending] = OrderedDict()
        self._answered: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        """Verdicts not answered yet."""
        return len(self._pending)

    def knows(self, key: Key) -> bool:
        """Whether this part has its verdict already."""
        return key in self._pending or key in self._answered

    def add(self, key: Key, verdict: Verdict, now_ns: int) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._pending.popitem(last=False)
            self._counts["verdicts_hopeless"] += 1
        self._pending[key] = _Pending(verdict, now_ns, now_ns)

    def drop(self, key: Key) -> None:
        """The part is settled."""
        if self._pending.pop(key, None) is not None:
            self._counts["verdicts_hopeless"] += 1

    def forget(self) -> None:
        """The controller restarted: nothing can come of any of them."""
        self._counts["verdicts_hopeless"] += len(self._pending)
        self._pending.clear()

    @property
    def due_ns(self) -> int | None:
        """When the next one is to be sent again; None where none waits."""
        return min((pending.again_ns for pending in self._pending.values()), default=None)

    def send(self, key: Key, now_ns: int) -> None:
        """Send this one."""
        self._send(key, self._pending[key], now_ns)

    def send_all(self, now_ns: int) -> None:
        """The controller is armed: tell it all that waited for that."""
        for key, pending in self._pending.items():
            self._send(key, pending, now_ns)

    def send_due(self, now_ns: int) -> None:
        """Send again what was not answered."""
        for key, pending in self._pending.items():
            if now_ns >= pending.again_ns:
                self._counts["verdict_retries"] += 1
                self._send(key, pending, now_ns)

    def answered(self, reply: VerdictR, now_ns: int) -> VerdictAnswered | None:
        """What became of a verdict; None where the answer is no news."""
        key = (reply.boot_id, reply.part_id)
        pending = self._pending.get(key)
        if pending is None:
            return None
        if reply.answer is Answer.NOT_ARMED:  # it may be armed before the part is at the decide point
            return None
        del self._pending[key]
        self._answered[key] = None
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)
        self._counts[f"verdict_{reply.answer.name.lower()}"] += 1
        return VerdictAnswered(*key, reply.answer, reply.in_force, now_ns - pending.since_ns)

    def _send(self, key: Key, pending: _Pending, now_ns: int) -> None:
        pending.again_ns = now_ns + VERDICT_AGAIN_NS
        self._exchange.send(VerdictMsg(*key, pending.verdict))
