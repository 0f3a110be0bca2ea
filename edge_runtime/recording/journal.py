"""The journal: one row per part in SQLite, written by a thread of its own.

The line calls `triggered`, `decided`, `ended` and `happened`; each is a put into memory (3-6 us) and never waits,
raises or touches the disk. The writer commits groups of at most 64 records or 20 ms with synchronous=FULL; what `flush`
waited for is on the medium, and nothing leaves the box before it is.

When the disk is full, read-only, locked, gone or damaged the line goes on: records wait in memory (minutes of them),
the writer tries again by itself, health says what to mend, and what found no room is counted and the count written into
the journal as soon as it can be. A damaged file is set aside under another name and a new one begun. Files that
somebody deletes, replaces or writes over under it are noticed within half a second and the rows kept (`file_guard`,
`rescue`); rows that are missing all the same are counted (`going_back`).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.messages import (
    Decision,
    Event,
    Frame,
    GateReport,
    HumanLabel,
    OperatorRequest,
    PartKey,
    Prediction,
    Trigger,
)
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.timing import Latency
from edge_runtime.recording.inbox import Inbox, Lost
from edge_runtime.recording.journal_file import JournalFile
from edge_runtime.recording.records import KINDS, Decided, Kept, Record, RecordWriter, RunInfo
from edge_runtime.recording.retention import Retention
from edge_runtime.recording.row_retention import RowRetention
from edge_runtime.recording.trouble import explain
from edge_runtime.recording.unwritten import count_unwritten, last_words
from edge_runtime.recording.wall_clock import WallClock

log = logging.getLogger(__name__)

GROUP_ROWS = 64
GROUP_WINDOW_S = 0.015  # from the first record of a group to its commit, which takes 1-5 ms: durable within 20
BACKLOG = 16_384  # records: 5 minutes at 20 parts/s, about 10 MB
IDLE_S = 0.5  # how long an idle writer sleeps before it shows that it is alive
RETRY_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)  # between attempts while the disk refuses
START_WAIT_S = 3.0
STOP_WAIT_S = 5.0
DECISIONS = 64  # of which it is known whether they are on the disk; a status document shows 24
CHORES_NS = 10 * SECOND  # wall clock and retention
DAY_NS = 86_400 * SECOND


class Journal:
    """A tap of the line and a component. `path` is the database file; its folder is made if need be."""

    name = "journal"

    def __init__(
        self,
        path: Path,
        info: RunInfo,
        clock: Clock = monotonic_ns,
        *,
        keep_days: int = 365,
        utc_ns: Callable[[], int] = time.time_ns,
        backlog: int = BACKLOG,
        retention: Retention | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._wall = WallClock(clock, utc_ns)
        self._file = JournalFile(path, info, self._wall, clock, self._wake)
        self.retention = retention or Retention(path.parent, clock, utc_ns)
        self._old_rows = RowRetention(self.retention, keep_days * DAY_NS)
        self._inbox: Inbox[Record] = Inbox(backlog, GROUP_ROWS, clock)
        self._decisions: deque[tuple[PartKey, int]] = deque(maxlen=DECISIONS)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self._kick = threading.Event()  # a writer that waits to try again tries now
        self._settled = threading.Condition()
        self._group: list[Record] = []
        self._committed = 0  # records of this turn that are committed
        self._losses: dict[tuple[str, str], Lost] = {}
        self._trouble = ""
        self._attempts = 0
        self._failed_attempt = 0
        self._failures_in_a_row = 0
        self._progress_ns = clock()
        self._chores_ns = self._progress_ns - CHORES_NS  # at once: the clock may have stepped since the last run
        self.durable = 0  # records on the disk, in the order they came
        self.commits = 0
        self.lost: Counter[str] = Counter()
        self.commit_ms = Latency()

    # -- what the line calls: never waits, never raises ---------------------------------------------------------------

    def triggered(self, trigger: Trigger) -> None:
        self._inbox.put(trigger, "trigger")

    def decided(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
        timings, regions = (prediction.timings_ms, prediction.regions) if prediction else ({}, ())
        number = self._inbox.put(Decided(decision, timings, regions), "decision")
        self._decisions.append((decision.key, number))

    def ended(self, report: GateReport) -> None:
        self._inbox.put(report, "outcome")

    def happened(self, event: Event) -> None:
        self._inbox.put(event, "event")

    def labelled(self, label: HumanLabel) -> None:
        self._inbox.put(label, "label")

    def requested(self, request: OperatorRequest) -> None:
        self._inbox.put(request, "request")

    def learn_model(self, label: str, digest: str) -> None:
        """A model that was not there when the run began: its digest belongs to its parts."""
        self._file.learn_model(label, digest)

    def kept(self, key: PartKey, file: str) -> None:
        """A picture of the part is on the disk; `file` is relative to the state folder."""
        self._inbox.put(Kept(key, file), "evidence")

    # -- component ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a run. A journal that cannot be written is told in health and tried again, not raised: parts go on."""
        if self._thread:
            return
        self._stopping.clear()
        self._file.begin(self._clock())
        self._thread = threading.Thread(target=self._loop, name="journal", daemon=True)
        self._thread.start()
        self._inbox.hurry()
        self._tried.wait(START_WAIT_S)

    def stop(self) -> None:
        """Write what waits, mark the run as ended in good order, close."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._note_retention(is_last=True)
        self._stopping.set()
        self._inbox.hurry()
        self._kick.set()
        thread.join(STOP_WAIT_S)
        if thread.is_alive():
            log.error("journal.stop the disk does not answer; waiting=%d", self.waiting)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put before is on the disk. False after `timeout_s`, or when the disk refuses."""
        target, attempt = self._inbox.accepted, self._attempts
        self._inbox.hurry()
        self._kick.set()
        with self._settled:
            self._settled.wait_for(lambda: self.durable >= target or self._failed_attempt > attempt, timeout_s)
        return self.durable >= target

    @property
    def waiting(self) -> int:
        """Records in memory that are not on the disk."""
        return self._inbox.accepted - self.durable

    def is_recorded(self, key: PartKey) -> bool:
        """Whether this decision, one of the last, is on the disk. False also where there was no room for it."""
        numbers = dict(list(self._decisions))  # a list in one go: the line adds to it all the while
        return 0 < numbers.get(key, 0) <= self.durable

    @property
    def unwritten(self) -> int:
        """Parts of which something is not in the journal: waiting, or lost for want of room. Final after `stop`."""
        return count_unwritten([*self._group, *self._inbox.peek()], self.lost)

    @property
    def run_id(self) -> int | None:
        """The row of this run; None before the first opening."""
        return self._file.run_id

    @property
    def quarantined(self) -> list[str]:
        """Files that were set aside in this run, the newest last."""
        return self._file.quarantined

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        if not self._trouble:
            well = State.DEGRADED if self._file.is_worrying else State.OK
            word = self._file.word or self.retention.trouble
            return Health(well if self._tried.is_set() else State.STARTING, word, self._progress_ns)
        is_losing = len(self._inbox) >= self._inbox.capacity
        detail = f"{self._trouble}; {self.waiting} records wait in memory"
        if is_losing:
            detail += ", further ones are lost"
        return Health(State.FAILED if is_losing else State.DEGRADED, detail, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        writer = self._file.writer
        return {
            "run": self.run_id,
            "accepted": self._inbox.accepted,
            "durable": self.durable,
            "waiting": self.waiting,
            "commits": self.commits,
            "commit_ms": self.commit_ms.summary(),
            "lost": dict(self.lost),
            "recovered": writer.recovered if writer else 0,
            "orphans": writer.orphans if writer else 0,
            "quarantined": list(self.quarantined),
            "time_quality": self._wall.quality.value,
            "retention": self.retention.report(),
        }

    # -- the writer's thread ------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            self._progress_ns = self._clock()
            if not self._group:
                self._group = self._inbox.take(IDLE_S, GROUP_WINDOW_S)
            is_last = self._stopping.is_set() and len(self._inbox) == 0
            try:
                self._turn(is_last)
            except Exception as err:
                self._fail(err)
                if self._stopping.is_set():
                    break
                self._kick.wait(RETRY_S[min(self._failures_in_a_row, len(RETRY_S)) - 1])
                self._kick.clear()
            else:
                if is_last and not self._group:
                    break
        self._leave_word()
        self._file.close(is_last=True)
        if self.unwritten:
            log.error("journal.lost the run ended with parts=%d records=%d unwritten", self.unwritten, self.waiting)

    def _turn(self, is_last: bool) -> None:
        self._attempts += 1
        self._note_losses()
        self._file.look()
        if self._clock() - self._chores_ns >= CHORES_NS:
            self._do_chores()
        writer = self._file.opened()
        if self._group or self._losses:
            self._commit(writer)
            self._file.prove()
        if is_last:
            self._file.end()
            self.retention.save(is_last=True)
        self._file.speak(None)
        if self._trouble:
            log.info("journal.well the journal is written again: waiting=%d", self.waiting)
        self._trouble, self._failures_in_a_row = "", 0
        self._tried.set()
        self._settle()

    def _commit(self, writer: RecordWriter) -> None:
        begun = time.perf_counter()
        malformed = writer.write_group(self._group, self._losses)
        self.commit_ms.add((time.perf_counter() - begun) * 1e3)
        self.commits += 1
        self._losses = {}
        self.lost.update(KINDS[type(record)] for record in malformed)
        self._committed += len(self._group)
        self._group = []

    def _settle(self) -> None:
        with self._settled:
            self.durable += self._committed
            self._committed = 0
            self._settled.notify_all()

    def _note_losses(self) -> None:
        for what, lost in self._inbox.take_losses().items():
            self.lost[what] += lost.count
            known = self._losses.setdefault((what, "backlog_full"), lost)
            if known is not lost:
                known.add(lost)

    def _do_chores(self) -> None:
        self._wall.refresh()
        self._chores_ns = self._clock()
        self.retention.look()
        self.retention.sweep()
        if self._file.is_open and not self._stopping.is_set():  # what goes now could not be told any more
            self.retention.save()
            self._file.prune(self._old_rows)
        self._note_retention()

    def _note_retention(self, *, is_last: bool = False) -> None:
        for event in self.retention.take_events(is_last=is_last):
            self._inbox.put(event, "event")

    def _wake(self) -> None:
        self._inbox.hurry()

    # -- when it cannot be written ------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        if self._file.let_go(error):
            self._settle()
        try:
            said = self._file.mend(error)
        except OSError as err:
            self._trouble = explain(err, "the journal", self.path.parent)
        else:
            if said is None:
                self._wait_or_give_up(error)
            else:
                self._trouble = said or self._trouble
                self._kick.set()
        self._leave_word()
        self._failures_in_a_row += 1
        self._tried.set()
        with self._settled:
            self._failed_attempt = self._attempts
            self._settled.notify_all()

    def _wait_or_give_up(self, error: Exception) -> None:
        if isinstance(error, (sqlite3.Error, OSError)):
            self._trouble = explain(error, "the journal", self.path.parent)
            log.warning("journal.trouble %s: %s", self._trouble, error)
        else:  # a fault of ours: these records may be what trips us, so they must not come back for ever
            self._trouble = f"the journal failed: {error}"
            log.exception("journal.fault records=%d are given up", len(self._group))
            self._give_up_group()

    def _leave_word(self) -> None:
        """What would be missing if the end came now, where a full disk has room for it."""
        waiting = [*self._group, *self._inbox.peek()]
        if waiting or self._losses:
            self._file.speak(last_words(self.run_id or 0, waiting, self._losses, self._wall))

    def _give_up_group(self) -> None:
        now = self._clock()
        for record in self._group:
            kind = KINDS[type(record)]
            self.lost[kind] += 1
            self._losses.setdefault((kind, "malformed"), Lost(0, now, now)).add(Lost(1, now, now))
        self._committed += len(self._group)
        self._group = []
        self._settle()
