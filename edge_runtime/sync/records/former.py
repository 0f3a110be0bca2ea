"""The journal before this one: what is left of it to read, and how much of it never was.

`run` sets a damaged journal aside under another name and begins a new one. What was recorded there and not delivered is
read from that file where it can be; where it cannot, it is counted.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import StorageError
from edge_runtime.recording.database import open_for_reading
from edge_runtime.recording.going_back import journal_identity

log = logging.getLogger(__name__)

MOST_FILES = 20  # looked at, the newest first
MOST_TRIES = 200  # that fail, in one slice: each takes a millisecond


def find_former(journal: Path, name: str) -> Path | None:
    """The file beside `journal`, under another name, that holds the journal `name`; None where none can be read."""
    beside = [path for path in journal.parent.glob(f"{journal.stem}.*{journal.suffix}") if path.is_file()]
    for path in sorted(beside, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:MOST_FILES]:
        try:
            with closing(open_for_reading(path)) as db:
                if journal_identity(db) == name:
                    return path
        except sqlite3.Error as err:
            log.warning("feeder.former file=%s cannot be read: %s", path.name, err)
    return None


def as_far_as_readable(
    read: Callable[[int, int], list[dict[str, Any]]], first: int, last: int, tries: int = MOST_TRIES
) -> tuple[list[dict[str, Any]], int]:
    """Rows `first` to `last` of a damaged journal, and how many numbers of them cannot be read, at most.

    Halves the range around damaged pages. read: first, last; raises StorageError.
    """
    rows: list[dict[str, Any]] = []
    unreadable, ranges = 0, [(first, last)]
    while ranges:
        begin, end = ranges.pop()
        try:
            rows += read(begin, end)
        except StorageError:
            tries -= 1
            if begin == end or tries <= 0:
                unreadable += end - begin + 1
            else:
                middle = (begin + end) // 2
                ranges += [(middle + 1, end), (begin, middle)]
    return rows, unreadable


def undelivered(
    told: Mapping[str, Any] | None, given: Mapping[str, int], positions: Mapping[str, int], behind: int
) -> dict[str, int]:
    """Rows by table that were never read from a journal that is gone, as far as anybody knows.

    told: the event of the journal in its place; `last` are the newest rows that the former one held. given: the highest
    numbers that were seen while it could be read. behind: parts that were left for later.
    """
    last = told.get("last") if told else None
    named = last if isinstance(last, Mapping) else {}
    counts = {"part": behind}
    for table, position in positions.items():
        known = named.get(table)
        newest = max(known if isinstance(known, int) else 0, given.get(table, 0))
        if newest > position:
            counts[table] = counts.get(table, 0) + newest - position
    return {table: count for table, count in counts.items() if count}
