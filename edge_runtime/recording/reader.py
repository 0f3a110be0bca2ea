"""Reading the journal: for the command line, the page and the uploader. Cannot write, and never makes the writer wait.

Standard library only, so that `parts list` starts at once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import Cause, Label, Outcome, PartKey, Region, Verdict
from edge_runtime.recording.database import open_for_reading, version_of
from edge_runtime.recording.going_back import say_shortfall
from edge_runtime.recording.labels import Saying, history_of, label_of, saying, saying_named
from edge_runtime.recording.schema import SEEN_AS_PRESENT, VERSION

PERCENTILES = (50, 95, 99)
PAGE = 200  # parts read at once where somebody works through all of them


@dataclass(frozen=True, slots=True)
class PartRow:
    """One part, joined: what triggered, what was decided and why, by which model and settings, and how it ended.

    verdict, cause and reason are None only while the part is on its way. Times named `*_ns` are monotonic within `run`.
    label: the last word of anybody; `JournalReader.history` has all of them. origin: whose answer it was, "local" or
    "remote:NAME/VERSION@HOST:PORT"; None where no model spoke, and in rows from before it was noted. file: name of the
    file that the picture was read from, where the camera is a folder.
    """

    id: int
    run: int
    boot_id: int
    part_id: int
    encoder: int | None
    trigger_ns: int
    trigger_utc_ns: int
    time_quality: str
    captured_ns: int | None
    decided_ns: int | None
    verdict: str | None
    cause: str | None
    reason: str | None
    score: float | None
    model: str | None
    model_digest: str | None
    config_digest: str
    recovered: int
    outcome: str
    outcome_encoder: int | None
    outcome_ns: int | None
    trigger_to_verdict_ms: float | None
    capture_to_verdict_ms: float | None
    timings_ms: Mapping[str, float]
    regions: tuple[Region, ...]
    evidence: str | None
    label: str | None
    origin: str | None
    file: str | None

    @property
    def part(self) -> str:
        """The controller's name for it: `boot-part`, the boot id in hex."""
        return f"{self.boot_id:04x}-{self.part_id}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the time of day spelled out and the latencies rounded to microseconds."""
        row: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        row["part"] = self.part
        row["time"] = iso_utc(self.trigger_utc_ns)
        row["recovered"] = bool(self.recovered)
        row["timings_ms"] = dict(self.timings_ms)
        row["regions"] = [
            {field.name: getattr(region, field.name) for field in fields(region)} for region in self.regions
        ]
        for name in ("trigger_to_verdict_ms", "capture_to_verdict_ms"):
            row[name] = None if row[name] is None else round(row[name], 3)
        return row


_COLUMNS = ", ".join(field.name for field in fields(PartRow))


@dataclass(frozen=True, slots=True)
class BootSince:
    """A moment on the monotonic clock of one boot of the machine."""

    machine_boot: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class PartFilter:
    """Which parts. Empty means all of them."""

    verdicts: Sequence[str] = ()
    causes: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    since_utc_ns: int | None = None
    boot: BootSince | None = (
        None  # with `since_utc_ns`: parts of this boot go by the monotonic clock, not by their date
    )
    run: int | None = None
    with_evidence: bool = False
    above: int | None = None  # rows after this one

    def where(self) -> tuple[str, list[Any]]:
        clauses: list[str] = []
        values: list[Any] = []
        for column, wanted in (("verdict", self.verdicts), ("cause", self.causes), ("outcome", self.outcomes)):
            if wanted:
                clauses.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values.extend(wanted)
        if self.since_utc_ns is not None and self.boot is not None:
            runs = "(SELECT id FROM run WHERE machine_boot = ?)"
            clauses.append(f"(run IN {runs} AND trigger_ns >= ? OR run NOT IN {runs} AND trigger_utc_ns >= ?)")
            values += [self.boot.machine_boot, self.boot.since_ns, self.boot.machine_boot, self.since_utc_ns]
        elif self.since_utc_ns is not None:
            clauses.append("trigger_utc_ns >= ?")
            values.append(self.since_utc_ns)
        if self.run is not None:
            clauses.append("run = ?")
            values.append(self.run)
        if self.above is not None:
            clauses.append("id > ?")
            values.append(self.above)
        if self.with_evidence:
            clauses.append("evidence IS NOT NULL")
        return (" WHERE " + " AND ".join(clauses) if clauses else ""), values


class JournalReader:
    """One connection to the journal of a state folder. Use it in the thread that made it; close it, or use `with`."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError when there is no journal that can be read."""
        self.path = path
        if not path.is_file():
            raise StorageError(f"no journal at {path}: nothing was recorded there yet (start `edge-runtime run` first)")
        with self._told():
            self._db = open_for_reading(path)
            version = version_of(self._db)
            if version in SEEN_AS_PRESENT:
                self._db.executescript(SEEN_AS_PRESENT[version])
        self.is_present = version == VERSION  # row numbers of labels are those that stay
        if not self.is_present and version not in SEEN_AS_PRESENT:
            self._db.close()
            raise StorageError(
                f"journal {path} has schema version {version}, this program reads {VERSION}: "
                + (
                    "use the newer edge-runtime"
                    if version > VERSION
                    else "start `edge-runtime run` once to bring it up"
                )
            )

    def close(self) -> None:
        self._db.close()

    def shortfall(self) -> str:
        """What was on the disk once and is not in this journal, as a sentence; empty when all is there.

        Said until `edge-runtime run` has counted it; after that it is in `losses`.
        """
        with self._told():
            return say_shortfall(self.path, self._db)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- parts --------------------------------------------------------------------------------------------------------

    def part(self, number: int) -> PartRow | None:
        """The part with this row id."""
        return next(iter(self._rows(" WHERE id = ?", [number])), None)

    def part_by_key(self, key: PartKey) -> PartRow | None:
        """The newest part to which the controller gave this name."""
        return next(iter(self._rows(" WHERE boot_id = ? AND part_id = ? ORDER BY run DESC LIMIT 1", list(key))), None)

    def newest(self, last: int, which: PartFilter | None = None) -> list[PartRow]:
        """The last so many parts, the newest last."""
        where, values = (which or PartFilter()).where()
        return self._rows(f"{where} ORDER BY id DESC LIMIT ?", [*values, last])[::-1]

    def parts(self, which: PartFilter | None = None) -> Iterator[PartRow]:
        """All of them, the oldest first. No read is open while the caller works on one: the writer's log would grow."""
        where, values = (which or PartFilter()).where()
        where = f"{where} AND id > ?" if where else " WHERE id > ?"
        last = -1
        while rows := self._rows(f"{where} ORDER BY id LIMIT {PAGE}", [*values, last]):
            yield from rows
            last = rows[-1].id

    def _rows(self, rest: str, values: Sequence[Any]) -> list[PartRow]:
        with self._told():
            return [_part(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM ledger{rest}", values)]

    # -- figures ------------------------------------------------------------------------------------------------------

    def counts(self, which: PartFilter | None = None) -> dict[str, Any]:
        """`parts`, `undecided`, and how many of each verdict, cause and outcome; zeros included."""
        where, values = (which or PartFilter()).where()
        found: dict[str, dict[str, int]] = {
            "verdicts": {verdict.value: 0 for verdict in Verdict},
            "causes": {cause.value: 0 for cause in Cause},
            "outcomes": {outcome.value: 0 for outcome in Outcome},
        }
        parts = undecided = 0
        query = f"SELECT verdict, cause, outcome, count(*) FROM part{where} GROUP BY verdict, cause, outcome"
        with self._told():
            for verdict, cause, outcome, count in self._db.execute(query, values):
                parts += count
                undecided += count if verdict is None else 0
                for group, value in (("verdicts", verdict), ("causes", cause), ("outcomes", outcome)):
                    if value is not None:
                        found[group][value] = found[group].get(value, 0) + count
        return {"parts": parts, "undecided": undecided, **found}

    def settled(self, above: int = 0) -> int:
        """The row up to which all parts after `above` are decided; `above` while there is none."""
        query = "SELECT coalesce((SELECT min(id) - 1 FROM part WHERE verdict IS NULL AND id > ?), max(id), 0) FROM part"
        with self._told():
            return max(above, int(self._db.execute(query, (above,)).fetchone()[0]))

    def row_before(self, utc_ns: int) -> int:
        """The row before the first part of this moment or later; the newest row while there is none."""
        query = "SELECT coalesce(min(id) - 1, (SELECT max(id) FROM part), 0) FROM part WHERE trigger_utc_ns >= ?"
        with self._told():
            return int(self._db.execute(query, (utc_ns,)).fetchone()[0])

    def minutes(self, above: int, upto: int | None = None) -> list[tuple[int, str | None, int]]:
        """Parts in the rows above one and up to another: minute since 1970, verdict, how many."""
        query = (
            "SELECT trigger_utc_ns / 60000000000, verdict, count(*) FROM part WHERE id > ? AND id <= ? GROUP BY 1, 2"
        )
        with self._told():
            rows = self._db.execute(query, (above, 2**62 if upto is None else upto))
            return [(int(minute), verdict, int(count)) for minute, verdict, count in rows]

    def newest_event(self, kind: str, last: int = 500) -> dict[str, Any] | None:
        """The newest event of this kind among the last so many."""
        found = self._dicts(
            "SELECT * FROM (SELECT * FROM event ORDER BY id DESC LIMIT ?) WHERE kind = ? ORDER BY id DESC LIMIT 1",
            [last, kind],
        )
        for event in found:
            event["detail"], event["time"] = json.loads(event["detail"]), iso_utc(event["at_utc_ns"])
        return found[0] if found else None

    def latency(self, which: PartFilter | None = None) -> dict[str, dict[str, float]]:
        """p50, p95, p99 and max in ms of `trigger_to_verdict` and `capture_to_verdict`; exact, empty without parts."""
        return {name: self._percentiles(f"{name}_ms", which) for name in ("trigger_to_verdict", "capture_to_verdict")}

    def _percentiles(self, column: str, which: PartFilter | None) -> dict[str, float]:
        where, values = (which or PartFilter()).where()
        where = f"{where} AND {column} IS NOT NULL" if where else f" WHERE {column} IS NOT NULL"
        with self._told():
            ordered = [ms for (ms,) in self._db.execute(f"SELECT {column} FROM ledger{where} ORDER BY 1", values)]
        if not ordered:
            return {}
        figures = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in PERCENTILES}
        return {name: round(ms, 3) for name, ms in {**figures, "max": ordered[-1]}.items()}

    # -- runs, events, losses -----------------------------------------------------------------------------------------

    def runs(self, last: int = 20) -> list[dict[str, Any]]:
        """The last so many runs, the newest last, with their configuration and versions."""
        return self._runs("ORDER BY id DESC LIMIT ?", last)[::-1]

    def _runs(self, rest: str, value: int) -> list[dict[str, Any]]:
        runs = self._dicts(f"SELECT * FROM run {rest}", [value])
        for run in runs:
            run["config"], run["versions"] = json.loads(run["config"]), json.loads(run["versions"])
            run["started"] = iso_utc(run["started_utc_ns"])
        return runs

    def newest_runs(self, last: int) -> list[tuple[int, str, int]]:
        """The last so many runs, the newest first: number, boot of the machine, monotonic start."""
        with self._told():
            query = "SELECT id, machine_boot, started_ns FROM run ORDER BY id DESC LIMIT ?"
            return [(run, boot, at_ns) for run, boot, at_ns in self._db.execute(query, (last,))]

    def runs_of_boot(self, machine_boot: str) -> list[int]:
        with self._told():
            return [run for (run,) in self._db.execute("SELECT id FROM run WHERE machine_boot = ?", (machine_boot,))]

    def last_date(self, run: int) -> tuple[int, str] | None:
        """Date and quality of the clock of a run's last part; None where it has none."""
        query = "SELECT trigger_utc_ns, time_quality FROM part WHERE run = ? ORDER BY id DESC LIMIT 1"
        with self._told():
            row = self._db.execute(query, (run,)).fetchone()
        return (int(row[0]), str(row[1])) if row else None

    def run(self, number: int | None = None) -> dict[str, Any] | None:
        """One run; None asks for the newest."""
        runs = self._runs("WHERE id = ?", number) if number is not None else self._runs("ORDER BY id DESC LIMIT ?", 1)
        return runs[0] if runs else None

    def events(self, last: int = 20, run: int | None = None) -> list[dict[str, Any]]:
        """The last so many events, the newest last."""
        clause, values = ("", []) if run is None else (" WHERE run = ?", [run])
        events = self._dicts(f"SELECT * FROM event{clause} ORDER BY id DESC LIMIT ?", [*values, last])[::-1]
        for event in events:
            event["detail"], event["time"] = json.loads(event["detail"]), iso_utc(event["at_utc_ns"])
        return events

    def requests(self, last: int = 20, run: int | None = None) -> list[dict[str, Any]]:
        """The last so many requests of operators, the newest last."""
        clause, values = ("", []) if run is None else (" WHERE run = ?", [run])
        requests = self._dicts(f"SELECT * FROM request{clause} ORDER BY id DESC LIMIT ?", [*values, last])[::-1]
        for request in requests:
            request["results"], request["time"] = json.loads(request["results"]), iso_utc(request["opened_utc_ns"])
        return requests

    def request_figures(self, since_utc_ns: int = 0) -> dict[str, Any]:
        """The output metrics of the voice application, counted from its rows.

        `requests`, how many of each outcome, and as shares of all requests (of those with speech or text, for the
        null results): `null_results` (nothing found or not understood), `redo` (asked again after nothing came of it),
        `typed` (typed instead of spoken), `chosen` (of those answered: a result was taken). None without requests.
        """
        rows = self._dicts(
            "SELECT outcome, count(*) AS count, sum(redo > 0) AS redo, sum(source = 'typed') AS typed,"
            " sum(choice IS NOT NULL) AS chosen FROM request WHERE opened_utc_ns >= ? GROUP BY outcome",
            [since_utc_ns],
        )
        outcomes = {row["outcome"]: row["count"] for row in rows}
        total = sum(outcomes.values())
        asked = total - outcomes.get("silent", 0)
        null = outcomes.get("empty", 0) + outcomes.get("unheard", 0)
        return {
            "requests": total,
            "outcomes": outcomes,
            "null_results": _share(null, asked),
            "redo": _share(sum(row["redo"] for row in rows), total),
            "typed": _share(sum(row["typed"] for row in rows), total),
            "chosen": _share(sum(row["chosen"] for row in rows), outcomes.get("answered", 0)),
        }

    def losses(self) -> list[dict[str, Any]]:
        """What the journal knows to be missing."""
        return self._dicts("SELECT * FROM loss ORDER BY id", [])

    # -- what people said ---------------------------------------------------------------------------------------------

    def history(self, part: int) -> list[Saying]:
        """All that was said about the part in this row, the oldest first."""
        with self._told():
            return history_of(self._db, part)

    def saying(self, number: int) -> Saying:
        """One label. Raises StorageError when there is none of this number."""
        with self._told():
            return saying(self._db, number)

    def saying_named(self, ref: str) -> Saying | None:
        """The label that whoever said it named so."""
        with self._told():
            return saying_named(self._db, ref)

    def label_of(self, key: PartKey) -> Label | None:
        """The last word of anybody about a part of this name."""
        with self._told():
            return label_of(self._db, key)

    # -- the file -----------------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What SQLite finds wrong with the file, page by page. Slow on a big journal."""
        try:
            found = [str(line) for (line,) in self._db.execute("PRAGMA quick_check(10)")]
        except sqlite3.DatabaseError as err:
            return [str(err)]
        return [] if found == ["ok"] else found

    def _dicts(self, query: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        with self._told():
            cursor = self._db.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            raise StorageError(f"cannot read the journal {self.path}: {err}") from err


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def iso_utc(utc_ns: int) -> str:
    """`2026-03-01T08:15:30.125Z`"""
    return (
        datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc_ns // 1_000_000 % 1000:03d}Z"
    )


def _part(row: Sequence[Any]) -> PartRow:
    values = dict(zip((field.name for field in fields(PartRow)), row, strict=True))
    values["timings_ms"] = json.loads(values["timings_ms"] or "{}")
    values["regions"] = tuple(Region(*region) for region in json.loads(values["regions"] or "[]"))
    return PartRow(**values)
