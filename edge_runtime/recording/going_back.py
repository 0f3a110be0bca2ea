"""A journal that holds less than it once held: seen by comparing its row numbers with the mark beside it.

The numbers come from SQLite's own sequences, which retention never lowers. Whoever opens the journal for writing counts
what is missing into it, lifts the sequences above everything that was ever given (a row number never stands for two
things), and gives the journal a new name, so that `sync` does not go on reading at a place that is another one now.
Whoever reads it says so.

Events, with the fields that `sync` may rely on. `journal` is the name of the journal as it was before; `first` and
`last` are the oldest and newest row numbers it held, by table (one of `TABLES`):

- `journal.went_back`: `why` (`went_back`, `replaced`, `empty`), `journal`, `now` (the new name), `first`, `last`,
  `found` (the newest rows still there; none when the file is another one), `missing` (rows by table), `parts`; and
  `what`, `how`, `file` as below, when it was noticed while running.
- `journal.set_aside`: `file` (its new name), `why`, `journal`, `now`, `first`, `last`, `missing`, `parts`: rows that
  the journal held and the present one does not. Without a mark only `file` and `why`.
- `journal.rescued`: `what` happened to the files, `how` (`log`, `copy`), `file` (what was set aside, or empty). Every
  row is still there, under its number.
- `journal.unwritten`: `run`, `parts`, `records` (by kind) that an earlier run could not write before it ended.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_runtime.recording.high_water import HighWater, read_high_water
from edge_runtime.recording.wall_clock import machine_boot

TABLES = ("run", "part", "event", "loss", "request", "label")
MARGIN_ROWS = 1000  # a power cut may cost the last second of the mark; nobody writes 1000 rows of a table in it
MARK_READS = 3  # of a mark that changes while it is compared
GROUP_MARGIN = 100  # a process may be killed between the commit of a group and its mark; readers may have seen it
NO_BOOT = "unknown"
RUN_MARGIN = 1  # the mark is synced when a run begins
_COUNTED = "SELECT what, sum(count) FROM loss GROUP BY what"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What the mark knew of and the file has not. missing: rows by table, none of them 0."""

    why: str  # went_back | replaced | empty | set_aside
    before: HighWater
    found: Mapping[str, int]
    missing: Mapping[str, int]
    uncounted: Mapping[str, int] = field(default_factory=dict)  # losses that were counted in rows that are missing, too

    @property
    def parts(self) -> int:
        return self.missing.get("part", 0)

    def sentence(self) -> str:
        """For people: how much is missing, and from where."""
        newest, known = self.found.get("part", 0), self.before.last.get("part", 0)
        rows = ", ".join(f"{count} rows of {table}" for table, count in self.missing.items() if table != "part")
        there = f"the newest part was {known} and is {newest}" if self.found else "it is another file than before"
        return f"{self.parts} parts that were on the disk are not in the journal ({there}{'; ' + rows if rows else ''})"

    def detail(self, now: str) -> dict[str, Any]:
        """Of the event that tells of it. now: the name of the journal from here on."""
        return {
            "why": self.why,
            "journal": self.before.journal,
            "now": now,
            "first": dict(self.before.first),
            "last": dict(self.before.last),
            "found": dict(self.found),
            "missing": dict(self.missing),
            "parts": self.parts,
        }


def counted_losses(connection: sqlite3.Connection) -> dict[str, int]:
    """How many are known to be missing, by what they are."""
    return {str(what): int(count) for what, count in connection.execute(_COUNTED)}


def journal_identity(connection: sqlite3.Connection) -> str:
    """Names this journal: drawn from its first run, and anew each time it went back. Empty before its first run."""
    query = "SELECT id, started_ns, started_utc_ns, machine_boot FROM run ORDER BY id LIMIT 1"
    row = connection.execute(query).fetchone()
    if row is None:
        return ""
    (drawn,) = connection.execute("PRAGMA application_id").fetchone()
    return hashlib.sha256((repr(tuple(row)) + (f"/{drawn}" if drawn else "")).encode()).hexdigest()[:12]


def given_numbers(connection: sqlite3.Connection) -> dict[str, int]:
    """The highest number ever given in each table, whatever retention took since."""
    found = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    return {table: int(found[table]) for table in TABLES if table in found}


def newest_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """The newest row of each table that has any."""
    return _ends(connection, "max")


def oldest_rows(connection: sqlite3.Connection) -> dict[str, int]:
    return _ends(connection, "min")


def _ends(connection: sqlite3.Connection, end: str) -> dict[str, int]:
    """Of tables that ever gave a number: a journal of an earlier version has not all of them."""
    found = {table: connection.execute(f"SELECT {end}(id) FROM {table}") for table in given_numbers(connection)}
    rows = {table: cursor.fetchone()[0] for table, cursor in found.items()}
    return {table: int(row) for table, row in rows.items() if row is not None}


def behind_mark(given: Mapping[str, int], mark: HighWater) -> str:
    """In words: of which table how many numbers are not there; empty when all are."""
    behind = {table: row - given.get(table, 0) for table, row in mark.given.items() if row > given.get(table, 0)}
    return f"rows that were written are not there: {behind}" if behind else ""


def find_shortfall(connection: sqlite3.Connection, mark: HighWater | None) -> Shortfall | None:
    """What is missing, if anything. Read the mark before the file: a file may always be further."""
    if mark is None or not mark.journal:
        return None
    name = journal_identity(connection)
    if name == mark.journal:
        given, found = given_numbers(connection), newest_rows(connection)
        if not behind_mark(given, mark):
            return None
        missing = {table: row - found.get(table, 0) for table, row in mark.last.items()}
        short = _shortfall("went_back", mark, found, missing)
        if short is None or "loss" not in missing or not missing["loss"]:
            return short
        still = counted_losses(connection)
        gone = {what: count - still.get(what, 0) for what, count in mark.counted.items()}
        return replace(short, uncounted={what: count for what, count in gone.items() if count > 0})
    return all_of(mark, "replaced" if name else "empty")


def say_shortfall(journal: Path, connection: sqlite3.Connection) -> str:
    """For readers: what was on the disk once and is not in this journal; empty when all is there, or was counted."""
    for _ in range(MARK_READS):
        mark = read_high_water(journal)
        short = find_shortfall(connection, mark)
        if short is None:
            return ""
        if read_high_water(journal) == mark:  # else a new journal begins at this moment
            return f"{short.sentence()}; `edge-runtime run` counts them as lost at its next start"
    return ""


def all_of(mark: HighWater, why: str) -> Shortfall | None:
    """Everything the mark knew of, for a file that is another one. Numbers may have holes: at most so many."""
    missing = {table: row - mark.first[table] + 1 for table, row in mark.last.items() if table in mark.first}
    short = _shortfall(why, mark, {}, missing)
    return replace(short, uncounted=mark.counted) if short else None


def _shortfall(why: str, mark: HighWater, found: Mapping[str, int], missing: Mapping[str, int]) -> Shortfall | None:
    missing = {table: count for table, count in missing.items() if count > 0}
    return Shortfall(why, mark, found, missing) if missing else None


def raise_floor(connection: sqlite3.Connection, mark: HighWater) -> None:
    """Inside a transaction: no number that was ever given is given again, and the journal gets a new name."""
    is_exact = mark.boot == machine_boot() != NO_BOOT
    for table, row in mark.given.items():
        floor = row + (RUN_MARGIN if table == "run" else GROUP_MARGIN if is_exact else MARGIN_ROWS)
        raised = connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (floor, table))
        if not raised.rowcount and table in TABLES:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, floor))
    connection.execute(f"PRAGMA application_id = {secrets.randbelow(2**31 - 1) + 1}")
