"""Slices of the journal's tables, read after the place where the last ones ended, as records.

New parts come first. When there are many (this process was away, or the quota held it back) they are noted as a range
and read in slices as the outbox empties, so that what happens now never queues behind last week.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.records.batch import Batch
from edge_runtime.sync.records.format import LATER, LIVE, drop_record, row_record, run_record
from edge_runtime.sync.records.former import as_far_as_readable
from edge_runtime.sync.records.journal import JournalTail
from edge_runtime.sync.records.journal_file import Row
from edge_runtime.sync.records.parts import Parts
from edge_runtime.sync.records.places import Places

log = logging.getLogger(__name__)

SLICE = 500  # rows of a table that are read at a time: about 30 ms
JUMP_FROM = 2000  # parts from which the older ones are left for later


class Slices:
    """Each `read_` adds what it finds to a batch. Raises StorageError when the journal cannot be read."""

    def __init__(
        self, tail: JournalTail, places: Places, parts: Parts, wall: WallClock, *, with_words: bool = False
    ) -> None:
        """with_words: the words of operators may leave the box."""
        self._with_words = with_words
        self._tail = tail
        self._places = places
        self._parts = parts
        self._wall = wall
        self._open_runs: set[int] = set()
        self.behind: list[tuple[int, int]] = []
        self.found_more = False  # a slice was full

    @property
    def rows_behind(self) -> int:
        """Parts of the journal that are read when there is time."""
        return sum(last - first + 1 for first, last in self.behind)

    def load(self, open_runs: set[int], behind: Sequence[tuple[int, int]]) -> None:
        self._open_runs, self.behind = open_runs, list(behind)

    def committed(self, batch: Batch) -> None:
        self._open_runs = (self._open_runs | batch.runs_opened) - batch.runs_closed
        if batch.behind is not None:
            self.behind = batch.behind

    def read_new(self, batch: Batch, table: str) -> None:
        position = self._places.rows[table]
        rows = self._tail.after(table, position, SLICE)
        if rows and position:
            self._note_gap(batch, table, position, rows[-1]["id"], len(rows))
        batch.drafts += [row_record(table, row, self._wall, LIVE, with_words=self._with_words) for row in rows]
        if rows:
            batch.reach(table, rows[-1])
            self.found_more |= len(rows) == SLICE

    def read_runs(self, batch: Batch) -> None:
        ended = [row["id"] for row in self._tail.run_states(sorted(self._open_runs)) if row["ended"] != "open"]
        for row in self._tail.runs(ended):
            batch.drafts.append(run_record(row, self._wall, LIVE))
            batch.runs_closed.add(row["id"])
        rows = self._tail.after("run", self._places.rows["run"], SLICE)
        for row in rows:
            started = {**row, "ended": "open", "stopped_utc_ns": None}
            batch.drafts.append(run_record(started, self._wall, LIVE))
            if row["ended"] == "open":
                batch.runs_opened.add(row["id"])
            else:
                batch.drafts.append(run_record(row, self._wall, LIVE))
        if rows:
            batch.reach("run", rows[-1])

    def read_parts(self, batch: Batch) -> None:
        position, newest = self._places.rows["part"], self._tail.newest("part")
        if newest <= position:
            return
        if self._tail.file.is_former:
            self._read_former_parts(batch, position, newest)
            return
        if newest - position > JUMP_FROM:
            first = max(position + 1, self._tail.oldest("part"))
            if position:
                self._note_gap(batch, "part", position, first - 1, 0)
            last = newest - SLICE
            batch.behind = [*self.behind, (first, last)]
            batch.positions["part"] = last
            self.found_more = True
            log.info("feeder.behind parts=%d are read when there is time", last - first + 1)
            return
        rows = self._tail.parts(position + 1, newest, SLICE)
        if rows and position:
            self._note_gap(batch, "part", position, rows[-1]["id"], len(rows))
        for row in rows:
            self._parts.tell(batch, row, LIVE, newest)
        if rows:
            batch.reach("part", rows[-1])
            self.found_more |= len(rows) == SLICE

    def _read_former_parts(self, batch: Batch, position: int, newest: int) -> None:
        last = min(position + SLICE, newest)
        rows = self._readable(batch, position + 1, last)
        for row in rows:
            self._parts.tell(batch, row, LIVE, newest)
        if rows:
            batch.reach("part", rows[-1])
        batch.positions["part"] = last
        self.found_more |= last < newest

    def _readable(self, batch: Batch, first: int, last: int) -> list[Row]:
        """Parts of a former journal, perhaps damaged: what cannot be read is counted, and the rest is not held up."""
        rows, unreadable = as_far_as_readable(lambda a, b: self._tail.parts(a, b, SLICE), first, last)
        if unreadable:
            log.error("feeder.lost journal=%s parts=%d cannot be read", self._tail.file.identity, unreadable)
            batch.drafts.append(drop_record(self._wall, "part", "journal_lost", unreadable))
        return rows

    def read_behind(self, batch: Batch) -> None:
        first, last = self.behind[0]
        newest = self._places.rows["part"]
        if self._tail.file.is_former:
            end = min(first + SLICE - 1, last)
            rows = self._readable(batch, first, end)
            rest = [(end + 1, last)] if end < last else []
        else:
            rows = self._tail.parts(first, last, SLICE)
            end = rows[-1]["id"] if len(rows) == SLICE else last
            self._note_gap(batch, "part", first - 1, end, len(rows))
            rest = [(end + 1, last)] if end < last else []
        for row in rows:
            self._parts.tell(batch, row, LATER, newest)
        batch.behind = [*rest, *self.behind[1:]]
        batch.positions.setdefault("part", newest)  # so that a slice without records is a batch, too

    def read_open(self, batch: Batch) -> None:
        """What became of parts that were not finished."""
        numbers = sorted(self._parts.open)
        if not numbers:
            return
        newest = batch.positions.get("part", self._places.rows["part"])
        changed, gone = self._parts.due(self._tail.part_states(numbers), newest)
        batch.closed |= gone  # retention took them
        for row in self._tail.whole_parts(changed):
            self._parts.tell(batch, row, LIVE, newest)

    def close_open(self, batch: Batch) -> None:
        """Parts of a former journal whose outcome will never be written there: decisions and outcomes add up."""
        self._parts.tell_unknown(batch, self._tail.whole_parts(sorted(self._parts.open)))

    def _note_gap(self, batch: Batch, table: str, position: int, last: int, found: int) -> None:
        """Retention deleted rows before they were read: that is a loss, and is said. found: rows up to number `last`.

        What is older than the oldest row may have gone before retention wrote down what it takes.
        """
        if last - position == found:
            return
        begin = min(max(position + 1, self._tail.oldest(table)), last + 1)
        count = begin - position - 1 + self._tail.pruned(table, begin, last)
        if not count:
            return
        log.error("feeder.gap table=%s rows=%d were deleted by retention before they were delivered", table, count)
        batch.drafts.append(drop_record(self._wall, table, "journal_retention", count))
