"""How far the journal was read, and which rows of it may still change: tables of the outbox.

What is read of the journal and how far it was read go into one transaction, so whatever writes here is called inside
one of the outbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from edge_runtime.sync.outbox.queue import Queue

Row = tuple[str, int]  # part | run, number of the journal's row


class Place:
    """Of the file that the outbox has open. Raises sqlite3.Error."""

    def __init__(self, outbox: Queue) -> None:
        self._outbox = outbox

    @property
    def _db(self) -> sqlite3.Connection:
        return self._outbox.db

    # -- reading ------------------------------------------------------------------------------------------------------

    def journal(self) -> str:
        """Which journal all of this belongs to; empty before the first."""
        return str(self._db.execute("SELECT journal FROM meta").fetchone()[0])

    def times_gone_back(self) -> int:
        """How often that journal gave row numbers a second time."""
        return int(self._db.execute("SELECT journal_again FROM meta").fetchone()[0])

    def rows(self) -> dict[str, int]:
        """For each table, the row up to which it was read."""
        return dict(self._db.execute("SELECT name, row FROM position").fetchall())

    def prints(self) -> list[tuple[str, int, str]]:
        """Table, row, what identifies that row: the oldest first."""
        return self._db.execute("SELECT name, row, print FROM seen ORDER BY row").fetchall()

    def open_rows(self) -> dict[Row, str]:
        """Rows that may still change, and what was told of each."""
        found = self._db.execute("SELECT name, row, told FROM open_row").fetchall()
        return {(name, row): told for name, row, told in found}

    def behind(self) -> list[tuple[int, int]]:
        """Parts that are read when there is time: first and last row of each stretch."""
        return self._db.execute("SELECT first, last FROM behind ORDER BY first").fetchall()

    def unfinished(self) -> list[Row]:
        """The first rows of which not all is said."""
        queries = (
            ("part", "SELECT min(first) FROM behind"),
            ("part", "SELECT min(row) FROM open_row WHERE name = 'part'"),
            ("run", "SELECT min(row) FROM open_row WHERE name = 'run'"),
        )
        found = ((table, self._db.execute(query).fetchone()[0]) for table, query in queries)
        return [(table, row) for table, row in found if row is not None]

    # -- writing ------------------------------------------------------------------------------------------------------

    def reach(self, rows: Mapping[str, int]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO position (name, row) VALUES (?, ?)", rows.items())

    def keep_prints(self, table: str, prints: Iterable[tuple[int, str]], gone: Iterable[int] = ()) -> None:
        self._db.executemany("DELETE FROM seen WHERE name = ? AND row = ?", [(table, row) for row in gone])
        rows = [(table, row, text) for row, text in prints]
        self._db.executemany("INSERT OR REPLACE INTO seen (name, row, print) VALUES (?, ?, ?)", rows)

    def close_rows(self, rows: Iterable[Row]) -> None:
        """These cannot change any more."""
        self._db.executemany("DELETE FROM open_row WHERE name = ? AND row = ?", rows)

    def keep_open(self, rows: Mapping[Row, str]) -> None:
        """These may still change; what was told of each."""
        values = [(name, row, told) for (name, row), told in rows.items()]
        self._db.executemany("INSERT OR REPLACE INTO open_row (name, row, told) VALUES (?, ?, ?)", values)

    def leave_behind(self, stretches: Sequence[tuple[int, int]]) -> None:
        self._db.execute("DELETE FROM behind")
        self._db.executemany("INSERT INTO behind (first, last) VALUES (?, ?)", stretches)

    def go_to(self, rows: Mapping[str, int]) -> None:
        """Read on after these rows, whatever was read of later ones."""
        for table, row in rows.items():
            self._db.execute("INSERT OR REPLACE INTO position (name, row) VALUES (?, ?)", (table, row))
            self._db.execute("DELETE FROM open_row WHERE name = ? AND row > ?", (table, row))
            self._db.execute("DELETE FROM seen WHERE name = ? AND row > ?", (table, row))
        if "part" in rows:
            self._db.execute("DELETE FROM behind WHERE first > ?", (rows["part"],))
            self._db.execute("UPDATE behind SET last = min(last, ?)", (rows["part"],))

    def begin_journal(self, name: str) -> None:
        """All of this belongs to that journal from now on."""
        self._db.execute("UPDATE meta SET journal = ?", (name,))

    def went_back(self) -> None:
        """The journal gives row numbers a second time."""
        self._db.execute("UPDATE meta SET journal_again = journal_again + 1")
