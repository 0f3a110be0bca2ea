"""Records become rows. One connection, one thread, no waiting, no retries: those are the journal's.

A part is one row, opened by its trigger, closed by its decision and completed by the far side's report. Each statement
about a part is harmless when repeated, because a group whose commit failed is written again, and the far side resends
what the box did not acknowledge before it died. What a crash left behind:

- Rows without a verdict are closed as `unsure/link_fault`: the verdict, if there was one, never became durable.
- A trigger resent within `RESENT_WITHIN_NS` of the next start, with the id and the encoder count of such a row, is that
  row and no second part. Its late decision replaces the placeholder.
- The far side reporting `passed` for such a row proves that it held an accept verdict: nothing else opens its gate.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from edge_runtime.core.clock import SECOND
from edge_runtime.core.errors import UsageError
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import (
    Decision,
    Event,
    GateReport,
    HumanLabel,
    OperatorRequest,
    PartKey,
    Region,
    Trigger,
)
from edge_runtime.recording.going_back import Shortfall, journal_identity, raise_floor
from edge_runtime.recording.high_water import LastWords
from edge_runtime.recording.inbox import Lost
from edge_runtime.recording.labels import append, checked
from edge_runtime.recording.row_retention import RowRetention
from edge_runtime.recording.wall_clock import WallClock, machine_boot

log = logging.getLogger(__name__)

RESENT_WITHIN_NS = 10 * SECOND  # the controller resends its event ring as soon as the link is up again
MOST_RESENT = 256  # parts between photo-eye and gate, with room; the controller's ring holds fewer

_RECOVERED_REASON = "the box stopped before a decision was recorded"
_PROVEN_REASON = "the box stopped before it noted its accept; the controller held it"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was running: written once per start."""

    config: Mapping[str, Any] = field(default_factory=dict)
    config_digest: str = ""
    model: str = ""  # name@version
    model_digest: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with what else is worth keeping of the moment. Holds no picture and no heat map."""

    decision: Decision
    timings_ms: Mapping[str, float]
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture of the part is on the disk now."""

    key: PartKey
    file: str


@dataclass(frozen=True, slots=True)
class Before:
    """What is to be told of the time before a journal was opened."""

    short: Shortfall | None = None  # rows that it no longer holds
    aside: Mapping[str, str] = field(default_factory=dict)  # the file that was set aside instead, and why
    words: LastWords | None = None  # what an earlier run could not write
    rescue: Mapping[str, str] = field(default_factory=dict)  # what was done to the files, and how the rows were kept


NOTHING = Before()

Record = Trigger | Decided | GateReport | HumanLabel | OperatorRequest | Event | Kept
KINDS: Mapping[type, str] = {
    Trigger: "trigger",
    Decided: "decision",
    GateReport: "outcome",
    HumanLabel: "label",
    OperatorRequest: "request",
    Event: "event",
    Kept: "evidence",
}
MALFORMED = (  # one record is wrong, not the disk
    UsageError,
    TypeError,
    ValueError,
    OverflowError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.IntegrityError,
)


class RecordWriter:
    """Writes one run into one open journal. Every public method is one transaction, or nothing when it raises."""

    def __init__(self, connection: sqlite3.Connection, wall: WallClock) -> None:
        self._db = connection
        self._wall = wall
        self._run = 0
        self._started_ns = 0
        self._digests: dict[str, str] = {}
        self._models: dict[str, int] = {}
        self._resendable: dict[PartKey, tuple[int | None, int]] = {}  # part -> encoder, row
        self._resendable_until_ns = 0
        self._adopted: dict[PartKey, int] = {}  # parts of an earlier run that this one carries on
        self.orphans = 0  # reports about parts that the journal does not know
        self.recovered = 0

    @property
    def run_id(self) -> int:
        return self._run

    @property
    def connection(self) -> sqlite3.Connection:
        return self._db

    def close(self) -> None:
        self._db.close()

    def learn_model(self, label: str, digest: str) -> None:
        """Another model came to work in this run."""
        self._digests[label] = digest
        self._models.pop(label, None)

    # -- runs ---------------------------------------------------------------------------------------------------------

    def begin(self, info: RunInfo, started_ns: int, before: Before = NOTHING) -> None:
        """Close what a crash left open, begin a run, and count into it what is missing of before."""
        self._started_ns = started_ns
        with self._transaction():
            if before.short:
                raise_floor(self._db, before.short.before)
            self._recover(started_ns)
            self._run = self._insert_run(info, started_ns)
            self._digests = {info.model: info.model_digest}
            if self.recovered:
                self._event(Event(EventKind.JOURNAL_RECOVERED, started_ns, {"parts": self.recovered}))
            self._count_in(before)

    def _count_in(self, before: Before) -> None:
        short, words, now_ns = before.short, before.words, self._wall.monotonic()
        if short or before.aside:
            detail = short.detail(journal_identity(self._db)) if short else {}
            kind = EventKind.JOURNAL_SET_ASIDE if before.aside else EventKind.JOURNAL_WENT_BACK
            self._event(Event(kind, now_ns, {**detail, **before.rescue, **before.aside}))
        elif before.rescue:
            self._event(Event(EventKind.JOURNAL_RESCUED, now_ns, before.rescue))
        if short:
            at = short.before.at_utc_ns
            for what in {**short.missing, **short.uncounted}:  # a loss whose count was lost is still a loss
                count = short.missing.get(what, 0) + short.uncounted.get(what, 0)
                self._lose_rows(what, short.why, count, at, at)
        if words:
            for what, count in words.records.items():
                self._lose_rows(what, "unwritten", count, words.first_utc_ns, words.last_utc_ns)
            detail = {"run": words.run, "parts": words.parts, "records": dict(words.records)}
            self._event(Event(EventKind.JOURNAL_UNWRITTEN, now_ns, detail))

    def resume(self, connection: sqlite3.Connection, before: Before = NOTHING) -> bool:
        """Go on with the same run over a new connection. False when that file does not know the run."""
        known = connection.execute(
            "SELECT 1 FROM run WHERE id = ? AND started_ns = ? AND ended = 'open'", (self._run, self._started_ns)
        ).fetchone()
        if not known:
            return False
        self._db = connection
        if before != NOTHING:
            with self._transaction():
                if before.short:
                    raise_floor(self._db, before.short.before)
                self._count_in(before)
        return True

    def end(self) -> None:
        """The run ended in good order."""
        with self._transaction():
            self.recovered += self._close_undecided()
            self._db.execute(
                "UPDATE run SET stopped_utc_ns = ?, ended = 'clean' WHERE id = ?", (self._wall.now(), self._run)
            )

    def write_group(self, records: Sequence[Record], losses: Mapping[tuple[str, str], Lost]) -> list[Record]:
        """Commit these records and what is missing before them; returned means on the disk.

        Answers those that no row can hold, which are noted as lost in the same transaction.
        """
        malformed: list[Record] = []
        with self._transaction():
            for record in records:
                try:
                    self._write(record)
                except MALFORMED as err:
                    log.error("journal.malformed record=%r error=%s", record, err)
                    malformed.append(record)
            for (what, why), lost in losses.items():
                self._lose(what, why, lost)
            now_ns = self._wall.monotonic()
            for record in malformed:
                self._lose(KINDS[type(record)], "malformed", Lost(1, now_ns, now_ns))
        return malformed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._models.clear()  # their rows may have gone with the transaction
            raise

    def _recover(self, now_ns: int) -> None:
        self.recovered = self._close_undecided()
        crashed = self._db.execute("UPDATE run SET ended = 'crashed' WHERE ended = 'open'").rowcount
        if not crashed:
            return
        open_rows = self._db.execute(
            "SELECT boot_id, part_id, encoder, part.id FROM part JOIN run ON run.id = part.run"
            " WHERE run.ended = 'crashed' AND outcome = 'unknown' ORDER BY part.id DESC LIMIT ?",
            (MOST_RESENT,),
        ).fetchall()
        self._resendable = {PartKey(boot, part): (encoder, row) for boot, part, encoder, row in reversed(open_rows)}
        self._resendable_until_ns = now_ns + RESENT_WITHIN_NS

    def _close_undecided(self) -> int:
        return self._db.execute(
            "UPDATE part SET verdict = 'unsure', cause = 'link_fault', reason = ?, recovered = 1 WHERE verdict IS NULL",
            (_RECOVERED_REASON,),
        ).rowcount

    def _insert_run(self, info: RunInfo, started_ns: int) -> int:
        cursor = self._db.execute(
            "INSERT INTO run (started_ns, started_utc_ns, time_quality, machine_boot, config, config_digest, model,"
            " model_digest, versions) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                started_ns,
                self._wall.utc(started_ns),
                self._wall.quality,
                machine_boot(),
                json.dumps(info.config, default=str),
                info.config_digest,
                info.model,
                info.model_digest,
                json.dumps(info.versions, default=str),
            ),
        )
        return int(cursor.lastrowid or 0)

    def _model_id(self, label: str, digest: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO model (label, digest) VALUES (?, ?)", (label, digest))
        (number,) = self._db.execute("SELECT id FROM model WHERE label = ? AND digest = ?", (label, digest)).fetchone()
        return int(number)

    # -- records ------------------------------------------------------------------------------------------------------

    def _write(self, record: Record) -> None:
        match record:
            case Trigger():
                self._trigger(record)
            case Decided():
                self._decision(record)
            case GateReport():
                self._outcome(record)
            case Event():
                self._event(record)
            case HumanLabel():
                append(self._db, self._run, checked(self._at_its_part(record)), self._wall)
            case OperatorRequest():
                self._request(record)
            case Kept():
                row = self._row(record.key)
                self._db.execute("UPDATE part SET evidence = ? WHERE id = ?", (record.file, row))

    def _trigger(self, trigger: Trigger) -> None:
        if not self._adopt(trigger.key, trigger.encoder, trigger.at_ns):
            self._insert_part(trigger.key, trigger.encoder, trigger.at_ns)

    def _adopt(self, key: PartKey, encoder: int | None, at_ns: int) -> bool:
        """Carry on a part of the run that crashed. encoder: None where the trigger was lost."""
        known, row = self._resendable.get(key, (None, 0))
        if not row or at_ns > self._resendable_until_ns or (encoder is not None and encoder != known):
            return False
        self._adopted[key] = row
        return True

    def _insert_part(self, key: PartKey, encoder: int | None, trigger_ns: int) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO part (run, boot_id, part_id, encoder, trigger_ns, trigger_utc_ns, time_quality)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._run, *key, encoder, trigger_ns, self._wall.utc(trigger_ns), self._wall.quality),
        )

    def _decision(self, record: Decided) -> None:
        decision = record.decision
        row = self._row(decision.key, in_this_run=True)
        if row is None:  # its trigger was lost under pressure, or with a damaged journal
            if not self._adopt(decision.key, None, decision.trigger_ns):
                self._insert_part(decision.key, None, decision.trigger_ns)
            row = self._row(decision.key, in_this_run=True)
        self._db.execute(
            "UPDATE part SET verdict = ?, cause = ?, reason = ?, score = ?, captured_ns = ?, decided_ns = ?, model = ?,"
            " origin = ?, file = ?, timings_ms = ?, regions = ?, recovered = 0"
            " WHERE id = ? AND (verdict IS NULL OR recovered = 1)",
            (
                decision.verdict.value,
                decision.cause.value,
                decision.reason,
                None if decision.score is None else float(decision.score),
                decision.captured_ns,
                decision.decided_ns,
                self._model(decision.model),
                decision.origin or None,
                decision.file or None,
                _timings(record.timings_ms),
                _regions(record.regions),
                row,
            ),
        )

    def _outcome(self, report: GateReport) -> None:
        row = self._row(report.key)
        if row is None:
            self.orphans += 1
            return
        self._db.execute(
            "UPDATE part SET outcome = ?, outcome_encoder = ?, outcome_ns = ? WHERE id = ? AND outcome = 'unknown'",
            (report.outcome.value, report.encoder, report.at_ns, row),
        )
        if report.outcome.value == "passed":
            self._db.execute(
                "UPDATE part SET verdict = 'accept', reason = ? WHERE id = ?"
                " AND (recovered = 1 OR (cause = 'link_fault' AND verdict = 'unsure'))",
                (_PROVEN_REASON, row),
            )

    def _event(self, event: Event) -> None:
        self._db.execute(
            "INSERT INTO event (run, kind, detail, at_ns, at_utc_ns, time_quality) VALUES (?, ?, ?, ?, ?, ?)",
            (
                self._run,
                event.kind,
                json.dumps(dict(event.detail), default=str),
                event.at_ns,
                self._wall.utc(event.at_ns),
                self._wall.quality,
            ),
        )

    def _at_its_part(self, label: HumanLabel) -> HumanLabel:
        """Who speaks of the part that has just passed means the row that goes on from before a crash, too."""
        return label if label.row is not None else replace(label, row=self._row(label.key))

    def _request(self, request: OperatorRequest) -> None:
        self._db.execute(
            "INSERT INTO request (run, source, opened_ns, opened_utc_ns, time_quality, start_ns, end_ns, transcript,"
            " confidence, command, results, redo, choice, outcome, reason, origin, audio)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._run,
                request.source,
                request.opened_ns,
                self._wall.utc(request.opened_ns),
                self._wall.quality,
                request.start_ns,
                request.end_ns,
                request.transcript,
                float(request.confidence),
                request.command.value if request.command else None,
                json.dumps(request.results, ensure_ascii=False),
                request.redo,
                request.choice,
                request.outcome,
                request.reason,
                request.origin,
                request.audio,
            ),
        )

    def _lose(self, what: str, why: str, lost: Lost) -> None:
        """Note how many records of one kind are missing, and between when and when."""
        self._lose_rows(what, why, lost.count, self._wall.utc(lost.first_ns), self._wall.utc(lost.last_ns))

    def _lose_rows(self, what: str, why: str, count: int, first_utc_ns: int, last_utc_ns: int) -> None:
        self._db.execute(
            "INSERT INTO loss (run, what, why, count, first_utc_ns, last_utc_ns) VALUES (?, ?, ?, ?, ?, ?)",
            (self._run, what, why, count, first_utc_ns, last_utc_ns),
        )

    def _row(self, key: PartKey, *, in_this_run: bool = False) -> int | None:
        """The newest row of this part: of this run, or carried on from the last one, or (for reports) of any."""
        adopted = self._adopted.get(key)
        if adopted is not None:
            return adopted
        oldest_run = self._run if in_this_run else 0
        found = self._db.execute(
            "SELECT id FROM part WHERE boot_id = ? AND part_id = ? AND run >= ? ORDER BY run DESC LIMIT 1",
            (*key, oldest_run),
        ).fetchone()
        return int(found[0]) if found else None

    def _model(self, label: str) -> int | None:
        if not label:
            return None
        if label not in self._models:
            self._models[label] = self._model_id(label, self._digests.get(label, ""))
        return self._models[label]

    def prune(self, old: RowRetention) -> None:
        """Delete the few rows that are old enough to go now."""
        old.prune(self._db, self._transaction)


def _timings(timings_ms: Mapping[str, float]) -> str | None:
    return json.dumps({stage: round(float(ms), 3) for stage, ms in timings_ms.items()}) if timings_ms else None


def _regions(regions: tuple[Region, ...]) -> str | None:
    if not regions:
        return None
    return json.dumps(
        [[*(round(float(v), 5) for v in (r.x, r.y, r.w, r.h, r.score)), r.label] for r in regions], ensure_ascii=False
    )
