"""The journal as the feeder reads it: what is new since a row, and what became of rows that were still open.

Every method raises StorageError when the journal cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edge_runtime.core.clock import Clock
from edge_runtime.sync.records.journal_file import JournalFile, Row
from edge_runtime.sync.records.places import COLUMNS, print_of

_VIEWS = {"label": "saying"}  # with the names of what the row refers to
IN_ONE_QUERY = 400  # row numbers in one IN (...); SQLite takes 999


class JournalTail:
    """Rows of one journal. Used by one thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.file = JournalFile(path, clock)

    def close(self) -> None:
        self.file.close()

    # -- what is new --------------------------------------------------------------------------------------------------

    def newest(self, table: str) -> int:
        return self.file.one(f"SELECT max(id) FROM {table}")

    def oldest(self, table: str) -> int:
        """The first row that retention has left; 0 in an empty table."""
        return self.file.one(f"SELECT min(id) FROM {table}")

    def after(self, table: str, row: int, limit: int) -> list[Row]:
        """The next rows of a table, but `part`; none where a journal of an earlier version has no such table."""
        if not self.file.has(table):
            return []
        view = _VIEWS.get(table, table)
        return self.file.rows(f"SELECT * FROM {view} WHERE id > ? ORDER BY id LIMIT ?", (row, limit))

    def parts(self, first: int, last: int, limit: int) -> list[Row]:
        """The next parts from row `first` to row `last`, with the names of view `ledger`."""
        return self.file.rows("SELECT * FROM ledger WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?", (first, last, limit))

    def pruned(self, table: str, first: int, last: int) -> int:
        """How many of these row numbers retention took."""
        return self.file.pruned(table, first, last)

    # -- is it still what was read ------------------------------------------------------------------------------------

    def given(self) -> dict[str, int]:
        """The highest row number that each table ever gave, whatever retention took since."""
        return self.file.pairs("SELECT name, seq FROM sqlite_sequence")

    def prints(self, table: str, rows: Sequence[int]) -> dict[int, str]:
        """What identifies these rows; without those that are not there."""
        found = self._of(f"SELECT id, {', '.join(COLUMNS[table])} FROM {table}", rows)
        return {row["id"]: print_of(table, row) for row in found}

    def told_of(self, journal: str) -> Row | None:
        """What the journal's own event says of the one of that name, which it replaced or was before it went back."""
        query = "SELECT detail FROM event WHERE kind IN ('journal.set_aside', 'journal.went_back') ORDER BY id DESC"
        for row in self.file.rows(f"{query} LIMIT 20", ()):
            with suppress(ValueError, TypeError, AttributeError):
                detail = json.loads(row["detail"])
                if detail.get("journal") == journal:
                    return dict(detail)
        return None

    # -- what became of it --------------------------------------------------------------------------------------------

    def part_states(self, rows: Sequence[int]) -> list[Row]:
        """id, verdict, cause, recovered, outcome, evidence: enough to see whether a part has changed."""
        return self._of("SELECT id, verdict, cause, recovered, outcome, evidence FROM part", rows)

    def whole_parts(self, rows: Sequence[int]) -> list[Row]:
        return self._of("SELECT * FROM ledger", rows)

    def run_states(self, rows: Sequence[int]) -> list[Row]:
        return self._of("SELECT id, ended FROM run", rows)

    def runs(self, rows: Sequence[int]) -> list[Row]:
        return self._of("SELECT * FROM run", rows)

    def part_named(self, boot_id: int, part_id: int) -> Row | None:
        """The newest part to which the controller gave this name."""
        query = "SELECT * FROM ledger WHERE boot_id = ? AND part_id = ? ORDER BY run DESC LIMIT 1"
        return next(iter(self.file.rows(query, (boot_id, part_id))), None)

    def _of(self, select: str, rows: Sequence[int]) -> list[Row]:
        found = []
        for at in range(0, len(rows), IN_ONE_QUERY):
            some = rows[at : at + IN_ONE_QUERY]
            found += self.file.rows(f"{select} WHERE id IN ({','.join('?' * len(some))})", some)
        return found
