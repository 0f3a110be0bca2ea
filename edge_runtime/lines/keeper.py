"""Sees to what is due: parts that nobody decided in time, a model over its budget, a server that is not back in time,
outcomes that nobody reported.

It sleeps until the next of them is due, and turns often enough to show that the line lives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.messages import Cause, GateReport, Outcome
from edge_runtime.decision.ledger import Ledger, Row
from edge_runtime.lines.inspector import Inspector
from edge_runtime.lines.remote_first import RemoteFirst

NAPS = 4  # in the shorter of deadline and stage budget: what begins during a nap is seen long before it is due
MOST_NAP_NS, LEAST_NAP_NS = 50 * MS, MS // 2  # 20 turns a second show that it is alive; never a busy loop


class Keeper:
    """`keep` is the body of the keeper's thread.

    give_up: decides a part whose deadline has passed: row, cause, reason. on_report: takes the outcome of a part of
    which the far side never told one.
    """

    def __init__(
        self,
        ledger: Ledger,
        inspector: Inspector,
        cfg: DecisionConfig,
        remote: RemoteFirst | None = None,
        *,
        give_up: Callable[[Row, Cause, str], None],
        on_report: Callable[[GateReport], None],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._inspector = inspector
        self._remote = remote
        self._give_up = give_up
        self._on_report = on_report
        self._clock = clock
        self._deadline_ms = cfg.deadline_ms
        self._nap_ns = min(MOST_NAP_NS, round(min(cfg.deadline_ms, cfg.stage_budget_ms) * MS) // NAPS)
        self.progress_ns = clock()

    def keep(self, stop: threading.Event) -> None:
        while not stop.is_set():
            now = self.progress_ns = self._clock()
            if self._remote is not None:
                self._remote.expire(now)
            self._inspector.supervise(now)
            for row in self._ledger.overdue(now):
                self._give_up(row, row.stage, self._missing(row))
            self.end_forgotten(now)
            stop.wait(self._nap_s())

    def end_forgotten(self, now_ns: int) -> None:
        """Parts of which the far side has said nothing for too long have an unknown outcome."""
        for key in self._ledger.forgotten(now_ns):
            self._on_report(GateReport(key, Outcome.UNKNOWN, 0, now_ns))

    def _nap_s(self) -> float:
        """Until something is due. Not every 5 ms: a tick in every other part's model time costs that part 30 us."""
        due_ns = [row.deadline_ns for row in self._ledger.undecided()]
        for one in (self._inspector, self._remote):
            if one is not None and (due := one.due_ns) is not None:
                due_ns.append(due)
        soonest_ns = min(due_ns, default=self._clock() + self._nap_ns) - self._clock()
        return max(LEAST_NAP_NS, min(self._nap_ns, soonest_ns)) / SECOND

    def _missing(self, row: Row) -> str:
        what = {Cause.NO_FRAME: "no frame", Cause.OVERLOAD: "still waiting for the model"}.get(row.stage, "no answer")
        return f"{what} after {self._deadline_ms:.0f} ms"
