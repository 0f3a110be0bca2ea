"""Parts that wait for a person: those a person may decide now, each until its own deadline.

Held is what the model said, or why it was not asked, with the picture; so there are never more than `capacity` of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import Clock
from edge_runtime.core.messages import OPERATOR, Cause, HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.decision.ledger import Ledger
from edge_runtime.lines.inspector import Job, Judged

Decide = Callable[[Job, Judged], bool]  # False when the part was decided already


@dataclass(frozen=True, slots=True)
class Held:
    """One part that waits, with what is held of it so far."""

    job: Job
    judged: Judged

    @property
    def key(self) -> PartKey:
        return self.job.trigger.key


def asks_person(degree: Automation, verdict: Verdict) -> bool:
    """Whether a person may decide a part of which the model holds this."""
    if degree is Automation.PARTIAL:
        return verdict is Verdict.UNSURE
    return degree is Automation.HUMAN_ONLY


class PersonQueue:
    """See the module. Any thread may call any method. decide enters a decision; label notes what a person said."""

    def __init__(
        self, ledger: Ledger, capacity: int, *, decide: Decide, label: Callable[[HumanLabel], None], clock: Clock
    ) -> None:
        self._ledger = ledger
        self._capacity = capacity
        self._decide = decide
        self._label = label
        self._clock = clock
        self._held: dict[PartKey, Held] = {}  # in the order they passed the eye
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, held: Held) -> None:
        """Let a part wait. Where too many do, the oldest is given up: each holds its picture."""
        crowded_out = None
        with self._lock:
            if self._ledger.hold(held.key):
                self._held[held.key] = held
            if len(self._held) > self._capacity:
                crowded_out = next(iter(self._held.values()))
        if crowded_out is not None:
            why = f"{crowded_out.judged.reason}; {self._capacity} parts wait for a person already"
            self._end(crowded_out, Verdict.UNSURE, Cause.OVERLOAD, why)

    def waiting(self) -> list[Held]:
        """Parts that a person may decide now, the one nearest to the gate first."""
        with self._lock:
            return list(self._held.values())

    def decide(self, verdict: Verdict, where: Where, key: PartKey | None = None, by: str = OPERATOR) -> PartKey | None:
        """A person's verdict for a waiting part, the oldest where no key is given. None when none waits (any more)."""
        for held in self.waiting():
            if key not in (None, held.key):
                continue
            if self._end(held, verdict, Cause.HUMAN, f"{where}; {held.judged.reason}"):
                self._label(HumanLabel(held.key, Label(verdict.value), self._clock(), by, where))
                return held.key
        return None

    def give_up(self, key: PartKey) -> bool:
        """The part's time is over: it is unsure for the reason it waits. False when it does not wait."""
        held = self._held.get(key)
        if held is None:
            return False
        self._end(held, Verdict.UNSURE, held.judged.cause, f"{held.judged.reason}; no person decided")
        return True

    def forget(self, key: PartKey) -> None:
        """The part is decided."""
        with self._lock:
            self._held.pop(key, None)

    def _end(self, held: Held, verdict: Verdict, cause: Cause, reason: str) -> bool:
        return self._decide(held.job, replace(held.judged, verdict=verdict, cause=cause, reason=reason))
