"""The part ledger: one row for each trigger, one decision for each row, one outcome for each decision.

A state machine without I/O or clock; the line calls it from several threads. A row leaves memory when it has both a
decision and an outcome, or when the controller has not reported for `outcome_wait_ns` (outcome `unknown`), so memory is
bounded by what is between photo-eye and gate.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from edge_runtime.core.messages import Cause, Decision, GateReport, Outcome, PartKey, Trigger, Verdict

REMEMBERED = 4096  # keys of finished parts kept to recognise repeats


@dataclass(slots=True)
class Row:
    """One part between photo-eye and gate."""

    trigger: Trigger
    deadline_ns: int
    captured_ns: int | None = None
    file: str = ""
    stage: Cause = Cause.NO_FRAME  # the cause to give if the deadline passes now
    decision: Decision | None = None
    outcome: Outcome | None = None
    waits_for_person: bool = False  # then the deadline is the person's, and nothing was late


@dataclass(frozen=True, slots=True)
class Counts:
    triggers: int
    verdicts: dict[str, int]
    causes: dict[str, int]
    outcomes: dict[str, int]
    late: int
    repeats: int

    @property
    def unaccounted(self) -> int:
        """Triggers without a decision, and decisions without an outcome. 0 once drained."""
        decided, ended = sum(self.verdicts.values()), sum(self.outcomes.values())
        return abs(self.triggers - decided) + abs(decided - ended)


class Ledger:
    """See the module. All methods are thread-safe and take microseconds."""

    def __init__(self, deadline_ns: int, outcome_wait_ns: int) -> None:
        self._deadline_ns = deadline_ns
        self._outcome_wait_ns = outcome_wait_ns
        self._rows: dict[PartKey, Row] = {}
        self._finished: dict[PartKey, None] = {}
        self._lock = threading.Lock()
        self._triggers = 0
        self._last_trigger_ns: int | None = None
        self._late = 0
        self._repeats = 0
        self._verdicts: Counter[str] = Counter()
        self._causes: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()

    def open(self, trigger: Trigger) -> bool:
        """Begin a row. False when this part is known already: a resent trigger event is not a second part."""
        with self._lock:
            if trigger.key in self._rows or trigger.key in self._finished:
                self._repeats += 1
                return False
            self._rows[trigger.key] = Row(trigger, trigger.at_ns + self._deadline_ns)
            self._triggers += 1
            self._last_trigger_ns = max(trigger.at_ns, self._last_trigger_ns or trigger.at_ns)
            return True

    def advance(self, key: PartKey, stage: Cause, captured_ns: int | None = None, file: str = "") -> bool:
        """The part moved on; `stage` is what would be to blame if it went no further. False if decided or unknown.

        captured_ns, file: of its picture, once that is there.
        """
        with self._lock:
            row = self._rows.get(key)
            if row is None or row.decision is not None:
                return False
            row.stage = stage
            row.captured_ns = captured_ns if captured_ns is not None else row.captured_ns
            row.file = file or row.file
            return True

    def hold(self, key: PartKey) -> bool:
        """The model has spoken, now a person may, until the deadline. False if decided or unknown."""
        with self._lock:
            row = self._rows.get(key)
            if row is None or row.decision is not None:
                return False
            row.stage, row.waits_for_person = Cause.MODEL, True
            return True

    def decide(self, decision: Decision) -> bool:
        """Enter a decision. The first one stands: False for every later one, and for parts nobody triggered."""
        with self._lock:
            row = self._rows.get(decision.key)
            if row is None or row.decision is not None:
                return False
            row.decision = decision
            self._verdicts[decision.verdict] += 1
            self._causes[decision.cause] += 1
            self._late += decision.decided_ns > row.deadline_ns and not row.waits_for_person
            self._finish_if_done(row)
            return True

    def end(self, report: GateReport) -> bool:
        """Enter what the controller did. False for repeats and for parts nobody triggered."""
        with self._lock:
            row = self._rows.get(report.key)
            if row is None or row.outcome is not None:
                return False
            row.outcome = report.outcome
            self._outcomes[report.outcome] += 1
            self._finish_if_done(row)
            return True

    def overdue(self, now_ns: int) -> list[Row]:
        """Rows without a decision whose deadline has passed; the caller decides them."""
        with self._lock:
            return [row for row in self._rows.values() if row.decision is None and now_ns >= row.deadline_ns]

    def undecided(self) -> list[Row]:
        with self._lock:
            return [row for row in self._rows.values() if row.decision is None]

    def forgotten(self, now_ns: int) -> list[PartKey]:
        """Decided parts of which the controller has said nothing for too long; the caller ends them as `unknown`."""
        with self._lock:
            return [
                key
                for key, row in self._rows.items()
                if row.decision and row.outcome is None and now_ns >= row.deadline_ns + self._outcome_wait_ns
            ]

    @property
    def open_parts(self) -> int:
        return len(self._rows)

    @property
    def last_trigger_ns(self) -> int | None:
        """When the newest part broke the photo-eye; None before the first."""
        return self._last_trigger_ns

    def counts(self) -> Counts:
        with self._lock:
            return Counts(
                triggers=self._triggers,
                verdicts={verdict.value: self._verdicts[verdict] for verdict in Verdict},
                causes={cause.value: self._causes[cause] for cause in Cause},
                outcomes={outcome.value: self._outcomes[outcome] for outcome in Outcome},
                late=self._late,
                repeats=self._repeats,
            )

    def _finish_if_done(self, row: Row) -> None:
        if row.decision is None or row.outcome is None:
            return
        key = row.trigger.key
        del self._rows[key]
        self._finished[key] = None
        while len(self._finished) > REMEMBERED:
            del self._finished[next(iter(self._finished))]
