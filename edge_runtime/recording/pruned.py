"""Which row numbers retention took: written with each deletion, so that whoever reads the journal late can count them.

A number that is not there proves nothing. SQLite leaves one out where a trigger came twice, a journal that went back
leaves out many, and retention takes rows one by one, so that what it took is no longer all that is older than the
oldest. So it is written down, as ranges: usually one a table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

# Not a new version of the schema: a release that does not know this table works on the file and leaves it alone.
TABLE = """
    CREATE TABLE IF NOT EXISTS pruned (
        name TEXT NOT NULL,                   -- of the table
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (name, first)
    ) WITHOUT ROWID
"""
_BEFORE = "SELECT first, last FROM pruned WHERE name = ? AND first < ? ORDER BY first DESC LIMIT 1"
_BEHIND = "SELECT last FROM pruned WHERE name = ? AND first = ?"


def ranges(ordered: Iterable[int]) -> list[tuple[int, int]]:
    """[1, 2, 3, 7, 8] -> [(1, 3), (7, 8)]"""
    found: list[tuple[int, int]] = []
    for number in ordered:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def note_pruned(db: sqlite3.Connection, table: str, rows: Iterable[int]) -> None:
    """These rows are deleted, in ascending order. Inside the transaction that deletes them."""
    for first, last in ranges(rows):
        before = db.execute(_BEFORE, (table, first)).fetchone()
        behind = db.execute(_BEHIND, (table, last + 1)).fetchone()
        begin = before[0] if before and before[1] == first - 1 else first
        if behind:
            db.execute("DELETE FROM pruned WHERE name = ? AND first = ?", (table, last + 1))
        range_ = (table, begin, behind[0] if behind else last)
        db.execute("INSERT OR REPLACE INTO pruned (name, first, last) VALUES (?, ?, ?)", range_)


def count_pruned(db: sqlite3.Connection, table: str, first: int, last: int) -> int:
    """How many of the row numbers from `first` to `last` retention took; 0 where there are none between them."""
    if first > last:
        return 0
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'pruned'").fetchone():
        return 0  # no release that notes it has written here
    query = (
        "SELECT coalesce(sum(min(last, ?) - max(first, ?) + 1), 0) FROM pruned"
        " WHERE name = ? AND first <= ? AND last >= ?"
    )
    return int(db.execute(query, (last, first, table, last, first)).fetchone()[0])
