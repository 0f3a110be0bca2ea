"""Where in the journal the feeder is, and by what it knows that the rows before are still those that it read.

A journal that lost its newest rows (damaged log, older copy brought back) is valid, and gives the same row numbers to
other parts. So with the position of each table goes the print of the row there: what was written with the row and never
changes. Prints of older rows are kept, ever fewer the older they are, to find the place from which to read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Seen = tuple[int, str]  # row number, print

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "run": ("started_ns", "machine_boot"),
    "event": ("kind", "at_ns"),
    "loss": ("what", "first_utc_ns"),
    "part": ("boot_id", "part_id", "trigger_ns"),
}
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
