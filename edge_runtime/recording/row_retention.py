"""Old rows of the journal go, each judged by itself: by the boot of its run and its monotonic time, and its own date.

The oldest numbers are looked at first, because they were written first; what a date holds back does not keep those
behind it. A few hundred rows a pass, some 5 ms, so that the line's records do not pile up behind it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from edge_runtime.recording.on_time import OnTime
from edge_runtime.recording.pruned import note_pruned
from edge_runtime.recording.retention import Retention

LOOK_ROWS = 200  # looked at in one pass, and so the most that go: 20 a second, what the fastest line makes
COUNT_MOST = 10_000  # rows that are counted one by one; of more, the numbers tell how many there are at most
MOST_RUNS = 5_000  # looked up in one pass


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    at: str  # monotonic; of a loss only the run is known, and of a label that was said while none went on
    date: str


TABLES = (
    Table("part", "trigger_ns", "trigger_utc_ns"),
    Table("event", "at_ns", "at_utc_ns"),
    Table("loss", "NULL", "last_utc_ns"),
    Table("request", "opened_ns", "opened_utc_ns"),
    Table("label", "at_ns", "at_utc_ns"),
)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    run: int
    at_ns: int | None
    utc_ns: int


class RowRetention:
    """keep_ns: how long rows are kept. Used by the journal's writer."""

    def __init__(self, retention: Retention, keep_ns: int) -> None:
        self._retention = retention
        self._keep_ns = keep_ns
        self._looked: dict[str, int] = {}  # table -> the rows up to here are held back by their dates

    def prune(
        self, db: sqlite3.Connection, transaction: Callable[[], AbstractContextManager[None]]
    ) -> Mapping[str, int]:
        """Delete what may go in this pass; how many rows of which table."""
        if not self._retention.look():
            return {}
        gone: dict[str, list[int]] = {}
        for table in TABLES:
            may = min(LOOK_ROWS, self._retention.grant(table.name, _stock(db, table.name), self._keep_ns))
            old = self._old(db, table)[:may] if may > 0 and not self._is_all_young(db, table) else []
            if old:
                gone[table.name] = old
        if gone:
            with transaction():
                for name, rows in gone.items():
                    db.execute(f"DELETE FROM {name} WHERE id IN ({','.join('?' * len(rows))})", rows)
                    note_pruned(db, name, rows)
            for name, rows in gone.items():
                self._retention.note_removed(name, len(rows))
        return {name: len(rows) for name, rows in gone.items()}

    def _is_all_young(self, db: sqlite3.Connection, table: Table) -> bool:
        """The first row of the next few is: the usual answer, without looking at them."""
        if self._looked.get(table.name):
            return False
        made_on = made_on_times(db, self._retention.on_time, self._next(db, table, 1))
        return not made_on or self._retention.is_young(made_on[0], self._keep_ns)

    def _next(self, db: sqlite3.Connection, table: Table, limit: int) -> list[_Row]:
        begin = self._looked.get(table.name, 0)
        query = f"SELECT id, run, {table.at}, {table.date} FROM {table.name} WHERE id > ? ORDER BY id LIMIT ?"
        return [_Row(*row) for row in db.execute(query, (begin, limit))]

    def _old(self, db: sqlite3.Connection, table: Table) -> list[int]:
        """Rows past their days, of the next few that no date holds back."""
        rows = self._next(db, table, LOOK_ROWS)
        made_on = made_on_times(db, self._retention.on_time, rows)
        old = [
            row.id
            for row, at in zip(rows, made_on, strict=True)
            if self._retention.is_old(at, row.utc_ns, self._keep_ns)
        ]
        is_end = len(rows) < LOOK_ROWS or self._retention.is_young(made_on[-1], self._keep_ns)
        if is_end:
            self._looked[table.name] = 0  # all behind is young: begin anew
        elif not old:
            self._looked[table.name] = rows[-1].id
        return old


def made_on_times(db: sqlite3.Connection, on_time: OnTime, rows: Sequence[_Row]) -> list[int]:
    """When each row was made on the scale of on-time, or later; of an unknown boot: when the next known run began.

    Runs follow each other in a journal, so a row is older than the run after its own. A time before its run began was
    resent or is wrong, and counts as that beginning.
    """
    if not rows:
        return []
    runs = db.execute(
        "SELECT id, machine_boot, started_ns FROM run WHERE id >= ? ORDER BY id LIMIT ?",
        (min(row.run for row in rows), MOST_RUNS),
    ).fetchall()
    latest = on_time.now()
    known: dict[int, tuple[str, int, int]] = {}  # run -> boot, its start, the start of the next known run as on-time
    for run, boot, started_ns in reversed(runs):
        known[run] = boot, started_ns, latest
        begun_on = on_time.of_boot(boot, started_ns)
        latest = latest if begun_on is None else min(latest, begun_on)
    return [_made_on(on_time, row, *known.get(row.run, ("", 0, on_time.now()))) for row in rows]


def _made_on(on_time: OnTime, row: _Row, boot: str, started_ns: int, next_run_on: int) -> int:
    if row.at_ns is None:
        return next_run_on
    made_on = on_time.of_boot(boot, max(row.at_ns, started_ns))
    return next_run_on if made_on is None else made_on


def _stock(db: sqlite3.Connection, table: str) -> int:
    (oldest,) = db.execute(f"SELECT min(id) FROM {table}").fetchone()
    (newest,) = db.execute(f"SELECT max(id) FROM {table}").fetchone()
    if oldest is None:
        return 0
    if newest - oldest < COUNT_MOST:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    return int(newest - oldest + 1)
