"""Where in the journal the feeder is, and by what it knows that the rows before are still those that it read.

A journal that lost its newest rows (damaged log, older copy brought back) is valid, and gives the same row numbers to
other parts. So with the position of each table goes the print of the row there: what was written with the row and never
changes. Prints of older rows are kept, ever fewer the older they are, to find the place from which to read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.sync.outbox.place import Place

Row = Mapping[str, Any]
Seen = tuple[int, str]  # row number, print

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "run": ("started_ns", "machine_boot"),
    "event": ("kind", "at_ns"),
    "loss": ("what", "first_utc_ns"),
    "part": ("boot_id", "part_id", "trigger_ns"),
    "label": ("boot_id", "part_id", "at_utc_ns"),
    "request": ("source", "opened_ns"),
}
TABLES = tuple(COLUMNS)
KEEP_SHARE = 8  # a print goes where the gap that it leaves is at most an eighth of its age: 8 to 16 a doubling remain


def print_of(table: str, row: Row) -> str:
    return "/".join(str(row[column]) for column in COLUMNS[table])


def thinned(seen: Sequence[Seen]) -> list[Seen]:
    """Oldest first, in and out. Of a million rows some 150 remain, and going back costs an eighth too much at most."""
    kept: list[Seen] = []
    for index in range(len(seen) - 1, -1, -1):
        if kept and index:
            newer, older, newest = kept[-1][0], seen[index - 1][0], seen[-1][0]
            if (newer - older) * KEEP_SHARE <= newest - newer:
                continue  # the gap that it leaves is small for its age
        kept.append(seen[index])
    return kept[::-1]


def went_back(position: int, given: int, seen: Sequence[Seen], found: Mapping[int, str]) -> bool:
    """Whether what was read up to `position` is no longer there. given: the highest number the table ever gave.

    found: prints of rows as they are now. A row that is not there was taken by retention, which proves nothing.
    """
    if given < position:
        return True
    newest = seen[-1] if seen else None
    return newest is not None and found.get(newest[0], newest[1]) != newest[1]


def last_common(seen: Sequence[Seen], found: Mapping[int, str]) -> int:
    """The newest row that is still the one that was read; 0 where none is."""
    return next((row for row, text in reversed(seen) if found.get(row) == text), 0)


class Prints(Protocol):
    """The journal, as far as places need it."""

    def given(self) -> dict[str, int]: ...

    def prints(self, table: str, rows: Sequence[int]) -> dict[int, str]: ...


class Places:
    """How far each table of the journal was read; `outbox/place.py` keeps it."""

    def __init__(self, journal: Prints) -> None:
        self._journal = journal
        self.rows: dict[str, int] = dict.fromkeys(TABLES, 0)
        self.given: dict[str, int] = {}  # the highest row numbers that this journal gave
        self._seen: dict[str, list[Seen]] = {table: [] for table in TABLES}

    def load(self, place: Place) -> None:
        self.rows = dict.fromkeys(TABLES, 0) | place.rows()
        self._seen = {table: [] for table in TABLES}
        for name, row, text in place.prints():
            self._seen[name].append((row, text))

    def store(self, place: Place, rows: Mapping[str, int], seen: Mapping[str, Seen]) -> None:
        """Inside a transaction; `stored` must follow."""
        place.reach(rows)
        for table, newest in seen.items():
            kept = dict(thinned([*self._seen[table], newest]))
            place.keep_prints(table, [newest], gone=[row for row, _ in self._seen[table] if row not in kept])

    def stored(self, rows: Mapping[str, int], seen: Mapping[str, Seen]) -> None:
        self.rows |= rows
        for table, place in seen.items():
            self._seen[table] = thinned([*self._seen[table], place])

    def gone_back(self) -> dict[str, int]:
        """Tables whose rows are no longer those that were read, and the row after which to read again."""
        self.given = self._journal.given()
        return {table: self.common(table) for table in TABLES if self._is_back(table)}

    def _is_back(self, table: str) -> bool:
        seen = self._seen[table][-1:]
        found = self._journal.prints(table, [row for row, _ in seen])
        return went_back(self.rows[table], self.given.get(table, 0), seen, found)

    def common(self, table: str) -> int:
        """The newest row of the journal that is open that was read before; 0 where none is known."""
        seen = self._seen[table]
        return last_common(seen, self._journal.prints(table, [row for row, _ in seen]))

    def print_first(self, place: Place) -> None:
        """Where a place has no prints, take them: it comes from the mark, or from a release that kept none.

        Of rows ever farther apart, so that going back reads at most twice what was lost. Inside a transaction.
        """
        for table, row in self.rows.items():
            if row and not self._seen[table]:
                some = [row, *(row - (1 << step) for step in range(row.bit_length() - 1))]
                self._seen[table] = sorted(self._journal.prints(table, some).items())
                place.keep_prints(table, self._seen[table])

    @property
    def lacks_prints(self) -> bool:
        return any(row and not self._seen[table] for table, row in self.rows.items())
