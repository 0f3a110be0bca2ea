"""From the journal into the outbox: every statement about a part once, in one transaction with how far it was read.

A part is one row of the journal that fills up over a few seconds. It is looked at until its outcome is known; each
change becomes a record (decision, decision revised, outcome) and rows that may still change are remembered in the
outbox together with what was told of them. A part that `OPEN_PARTS` younger ones have passed gets the outcome
`unknown`: counts of decisions and outcomes add up in the cloud, too.

New parts come first. When there are many (this process was away, or the quota held it back) they are noted as a range
and read in slices as the outbox empties, so that what happens now never queues behind last week.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from edge_runtime.core.clock import SECOND
from edge_runtime.core.errors import StorageError
from edge_runtime.core.events import EventKind
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.mark import read_mark
from edge_runtime.sync.outbox.outbox import Outbox
from edge_runtime.sync.records.feeder_batch import Batch, Told
from edge_runtime.sync.records.feeder_former import as_far_as_readable, find_former, undelivered
from edge_runtime.sync.records.feeder_journal import JournalTail, Row
from edge_runtime.sync.records.feeder_place import TABLES, Places
from edge_runtime.sync.records.records import (
    LATER,
    LIVE,
    decision_record,
    drop_record,
    outcome_record,
    own_event,
    part_name,
    row_record,
    run_record,
)

log = logging.getLogger(__name__)

SLICE = 500  # rows of a table that are read at a time: about 30 ms
JUMP_FROM = 2000  # parts from which the older ones are left for later
BEHIND_BELOW = 4000  # records waiting, above which nothing old is added
OPEN_PARTS = 1024  # between photo-eye and gate are some 20, a controller's ring holds at most 256
LINGER_NS = 10 * SECOND  # a finished part's picture may be written this much later
FORMER_NS = 5 * SECOND  # `run` may write into a deleted journal for a moment before it sees that it is gone


class Feeder:
    """Used by the thread that owns the outbox. pictures_of: verdicts whose pictures are to be uploaded. with_words: the
    words of operators may leave the box."""

    def __init__(
        self,
        outbox: Outbox,
        tail: JournalTail,
        wall: WallClock,
        pictures_of: Collection[str] = frozenset(),
        *,
        with_words: bool = False,
    ) -> None:
        self._outbox = outbox
        self._tail = tail
        self._wall = wall
        self._pictures_of = frozenset(pictures_of)
        self._with_words = with_words
        self._journal: str | None = None
        self._places = Places(tail)
        self._open: dict[int, Told] = {}
        self._open_runs: set[int] = set()
        self._behind: list[tuple[int, int]] = []
        self._finished_ns: dict[int, int] = {}
        self._finished: set[str] = set()  # former journals that were read to their end
        self._looked_ns = 0
        self._has_more = True  # rows wait that the last look did not reach
        self._found_more = False
        self.records = 0

    @property
    def has_more(self) -> bool:
        """Whether it is worth looking again at once."""
        return self._has_more

    @property
    def reads_former(self) -> bool:
        """Another journal lies under the name, and its turn has not come yet."""
        return self._tail.is_former

    @property
    def rows_behind(self) -> int:
        """Parts of the journal that are read when there is time."""
        return sum(last - first + 1 for first, last in self._behind)

    def outbox_renewed(self) -> None:
        """Another file lies under the outbox: read from it where to go on."""
        self._journal = None

    def look(self, *, may_catch_up: bool) -> Batch | None:
        """What is new, to be given to `commit`; None when nothing is. Raises StorageError when it cannot be read."""
        has_news = self._tail.has_news()
        if self._journal != self._tail.identity:
            self._adopt()
        elif has_news:
            self._check_place()
        if not self._tail.is_former:
            self._finished.discard(self._tail.identity)
        is_time = self._wall.monotonic() - self._looked_ns >= LINGER_NS // 2
        if not (has_news or self._has_more or is_time or (may_catch_up and self._behind) or self._tail.is_former):
            return None
        if not self._tail.is_former:
            return self._read(may_catch_up, look_again=has_news or is_time)
        batch = self._read(may_catch_up, look_again=True)
        if batch is None and not self._behind and self._tail.may_let_go(FORMER_NS):
            if last_words := self._close_open():
                return last_words
            self._let_go()
            return self.look(may_catch_up=may_catch_up)
        return batch

    def _close_open(self) -> Batch:
        """Parts of the former journal whose outcome will never be written there: decisions and outcomes add up."""
        batch = Batch()
        self._attempt(lambda: self._tell_unknown(batch))
        return batch

    def _tell_unknown(self, batch: Batch) -> None:
        for row in self._tail.whole_parts(sorted(self._open)):
            self._tell(batch, row, self._open[row["id"]], LIVE, row["id"] + OPEN_PARTS + 1)

    def _let_go(self) -> None:
        """The former journal was read as far as it goes: the one in its place is next."""
        self._finished.add(self._tail.identity)
        self._tail.close()
        self._has_more = True

    def _read(self, may_catch_up: bool, look_again: bool) -> Batch | None:
        batch = Batch()
        self._has_more, self._found_more = True, False  # until it is committed: a full disk must not make us forget
        if look_again:
            self._looked_ns = self._wall.monotonic()
        self._attempt(lambda: self._read_runs(batch))
        for table in ("event", "loss"):
            self._attempt(partial(self._read_new, batch, table))
        self._attempt(lambda: self._read_parts(batch))
        self._attempt(lambda: self._read_open(batch))
        for table in ("label", "request"):  # behind the parts that they are about
            self._attempt(partial(self._read_new, batch, table))
        if may_catch_up and self._behind and not self._found_more:
            self._attempt(lambda: self._read_behind(batch))
        if batch:
            return batch
        self._has_more = self._found_more
        return None

    def _attempt(self, read: Callable[[], None]) -> None:
        """One table of a damaged former journal that cannot be read is no reason to leave the others."""
        try:
            read()
        except StorageError as err:
            if not self._tail.is_former:
                raise
            log.warning("feeder.former journal=%s %s", self._journal, err)

    def commit(self, batch: Batch) -> None:
        """Inside a transaction of the outbox; `committed` must follow."""
        self._outbox.add(batch.drafts)
        batch.store(self._outbox.db)
        self._places.store(self._outbox.db, batch.positions, batch.seen)

    def committed(self, batch: Batch) -> None:
        self._places.stored(batch.positions, batch.seen)
        for row in batch.closed:
            self._open.pop(row, None)
            self._finished_ns.pop(row, None)
        self._open |= batch.opened
        self._open_runs = (self._open_runs | batch.runs_opened) - batch.runs_closed
        if batch.behind is not None:
            self._behind = batch.behind
        self.records += len(batch.drafts)
        self._has_more = self._found_more

    # -- where to go on -----------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Find the place in this journal: from the outbox, else from the mark beside it, else its beginning."""
        outbox = self._outbox
        before = outbox.journal()
        if before not in ("", self._tail.identity) and before not in self._finished:
            self._look_for_former(before)
        identity = self._tail.identity
        if before != identity:
            self._begin(before, identity)
            self._places.given = {}
        self._load()
        self._journal, self._has_more = identity, True
        self._check_place()
        if self._places.lacks_prints:
            with outbox.transaction():
                self._places.print_first(outbox.db)

    def _look_for_former(self, name: str) -> None:
        """A journal that was set aside is read to its end before the one in its place."""
        former = find_former(self._tail.path, name)
        if former is None:
            return
        log.warning("feeder.former file=%s is read first", former.name)
        try:
            self._tail.open_former(former)
        except StorageError as err:
            log.error("feeder.former %s", err)
            self._let_go()
            self._finished.add(name)
            self._tail.has_news()

    def _load(self) -> None:
        outbox = self._outbox
        outbox.form = replace(outbox.form, journal=self._name())
        self._places.load(outbox.db)
        rows = outbox.db.execute("SELECT name, row, told FROM open_row").fetchall()
        self._open = {row: Told.of(told) for name, row, told in rows if name == "part"}
        self._open_runs = {row for name, row, _ in rows if name == "run"}
        self._behind = outbox.db.execute("SELECT first, last FROM behind ORDER BY first").fetchall()
        self._finished_ns.clear()

    def _name(self) -> str:
        """Row numbers that were given twice belong to two journals, as far as a consumer is concerned."""
        journal, again = self._outbox.db.execute("SELECT journal, journal_again FROM meta").fetchone()
        return f"{journal}.{again}" if again else str(journal)

    def _begin(self, before: str, identity: str) -> None:
        """Another journal, or the same one under a new name because it went back: common rows are not read again."""
        outbox, db = self._outbox, self._outbox.db
        mark = read_mark(outbox.path)
        known = mark.delivered if mark and mark.journal == identity and not before else {}
        lost = dict(outbox.rows_lost) if not before and mark and mark.journal not in ("", identity) else {}
        if before:
            self._load()
            known = {table: self._places.common(table) for table in TABLES}
        log.info("feeder.journal journal=%s before=%s from_part=%d", identity, before or "none", known.get("part", 0))
        with outbox.transaction():
            self._places.go_to(db, {table: known.get(table, 0) for table in TABLES})
            db.execute("UPDATE meta SET journal = ?", (identity,))
            if before:
                outbox.add([own_event(EventKind.JOURNAL_REPLACED, {"before": before, "now": identity}, self._wall)])
                lost |= self._never_read(before)
            outbox.add([drop_record(self._wall, what, "journal_lost", count) for what, count in lost.items()])
        outbox.rows_lost = {}

    def _never_read(self, before: str) -> dict[str, int]:
        """Rows of the former journal that nobody can read any more."""
        told = self._tail.told_of(before)
        given = self._places.given if before == self._journal else {}
        lost = undelivered(told, given, self._places.rows, self.rows_behind)
        if lost:
            log.error("feeder.lost journal=%s rows=%s were never read", before, lost)
        return lost

    def _check_place(self) -> None:
        """Is what was read still there? Where it is not, go back to what is."""
        given = self._places.given
        back = self._places.gone_back()
        if not back:
            return
        before = {table: self._places.rows[table] for table in back}
        lost = undelivered(None, {table: given.get(table, 0) for table in back}, before, 0)
        log.error("feeder.went_back journal=%s from=%s to=%s", self._journal, before, back)
        with self._outbox.transaction():
            self._places.go_to(self._outbox.db, back)
            self._outbox.db.execute("UPDATE meta SET journal_again = journal_again + 1")
            detail = {"journal": self._journal, "from": before, "to": back}
            self._outbox.add([own_event(EventKind.SYNC_WENT_BACK, detail, self._wall)])
            self._outbox.add([drop_record(self._wall, what, "journal_lost", count) for what, count in lost.items()])
        self._load()
        self._has_more = True

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_new(self, batch: Batch, table: str) -> None:
        position = self._places.rows[table]
        rows = self._tail.after(table, position, SLICE)
        if rows and position:
            self._note_gap(batch, table, position, rows[-1]["id"], len(rows))
        batch.drafts += [row_record(table, row, self._wall, LIVE, with_words=self._with_words) for row in rows]
        if rows:
            batch.reach(table, rows[-1])
            self._found_more |= len(rows) == SLICE

    def _read_runs(self, batch: Batch) -> None:
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

    def _read_parts(self, batch: Batch) -> None:
        position, newest = self._places.rows["part"], self._tail.newest("part")
        if newest <= position:
            return
        if self._tail.is_former:
            self._read_former_parts(batch, position, newest)
            return
        if newest - position > JUMP_FROM:
            first = max(position + 1, self._tail.oldest("part"))
            if position:
                self._note_gap(batch, "part", position, first - 1, 0)
            last = newest - SLICE
            batch.behind = [*self._behind, (first, last)]
            batch.positions["part"] = last
            self._found_more = True
            log.info("feeder.behind parts=%d are read when there is time", last - first + 1)
            return
        rows = self._tail.parts(position + 1, newest, SLICE)
        if rows and position:
            self._note_gap(batch, "part", position, rows[-1]["id"], len(rows))
        for row in rows:
            self._tell(batch, row, Told(), LIVE, newest)
        if rows:
            batch.reach("part", rows[-1])
            self._found_more |= len(rows) == SLICE

    def _read_former_parts(self, batch: Batch, position: int, newest: int) -> None:
        last = min(position + SLICE, newest)
        rows = self._readable(batch, position + 1, last)
        for row in rows:
            self._tell(batch, row, Told(), LIVE, newest)
        if rows:
            batch.reach("part", rows[-1])
        batch.positions["part"] = last
        self._found_more |= last < newest

    def _readable(self, batch: Batch, first: int, last: int) -> list[Row]:
        """Parts of a former journal, perhaps damaged: what cannot be read is counted, and the rest is not held up."""
        rows, unreadable = as_far_as_readable(lambda a, b: self._tail.parts(a, b, SLICE), first, last)
        if unreadable:
            log.error("feeder.lost journal=%s parts=%d cannot be read", self._journal, unreadable)
            batch.drafts.append(drop_record(self._wall, "part", "journal_lost", unreadable))
        return rows

    def _read_behind(self, batch: Batch) -> None:
        first, last = self._behind[0]
        newest = self._places.rows["part"]
        if self._tail.is_former:
            end = min(first + SLICE - 1, last)
            rows = self._readable(batch, first, end)
            rest = [(end + 1, last)] if end < last else []
        else:
            rows = self._tail.parts(first, last, SLICE)
            end = rows[-1]["id"] if len(rows) == SLICE else last
            self._note_gap(batch, "part", first - 1, end, len(rows))
            rest = [(end + 1, last)] if end < last else []
        for row in rows:
            self._tell(batch, row, Told(), LATER, newest)
        batch.behind = [*rest, *self._behind[1:]]
        batch.positions.setdefault("part", newest)  # so that a slice without records is a batch, too

    def _read_open(self, batch: Batch) -> None:
        """What became of parts that were not finished."""
        if not self._open:
            return
        newest, now = batch.positions.get("part", self._places.rows["part"]), self._wall.monotonic()
        states = {row["id"]: row for row in self._tail.part_states(sorted(self._open))}
        changed = []
        for number, told in self._open.items():
            state = states.get(number)
            if state is None:
                batch.closed.add(number)  # retention took it
            elif self._is_due(number, state, told, newest, now):
                changed.append(number)
        for row in self._tail.whole_parts(changed):
            self._tell(batch, row, self._open[row["id"]], LIVE, newest)

    def _is_due(self, number: int, state: Row, told: Told, newest: int, now: int) -> bool:
        """Whether there is something to say about this part, or no longer anything to wait for."""
        if (
            _signature(state) != told.verdict
            or state["outcome"] != told.outcome
            or bool(state["evidence"]) != told.picture
        ):
            return True
        if _is_finished(state):
            return now - self._finished_ns.setdefault(number, now) >= LINGER_NS
        return number < newest - OPEN_PARTS and state["verdict"] is not None

    def _tell(self, batch: Batch, row: Row, told: Told, lane: int, newest: int) -> None:
        """Say of this part what was not said yet, and decide whether to keep an eye on it."""
        number, now = row["id"], self._wall.monotonic()
        said = told
        if row["verdict"] is not None and _signature(row) != told.verdict:
            said = replace(said, revision=said.revision + 1, verdict=_signature(row))
            batch.drafts.append(decision_record(row, said.revision, lane))
        is_old = number < newest - OPEN_PARTS and row["verdict"] is not None
        if row["outcome"] != told.outcome or (is_old and row["outcome"] == "unknown"):
            said = replace(said, outcome=row["outcome"])
            batch.drafts.append(outcome_record(row, lane))
        if row["evidence"] and not told.picture:
            said = replace(said, picture=True)
            if row["verdict"] in self._pictures_of:
                batch.pictures.append((row["evidence"], part_name(row["boot_id"], row["part_id"]), row["verdict"]))
        has_lingered = now - self._finished_ns.get(number, now) >= LINGER_NS
        waits_for_picture = bool(self._pictures_of) and lane == LIVE and not (said.picture or has_lingered)
        is_over = _is_finished(row) and not waits_for_picture
        if is_old or is_over:
            batch.closed.add(number)
            batch.opened.pop(number, None)
        elif said != told or number not in self._open:
            batch.opened[number] = said

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

    def report(self) -> Mapping[str, Any]:
        return {
            "journal": self._journal or "",
            "positions": dict(self._places.rows),
            "open_parts": len(self._open),
            "rows_behind": self.rows_behind,
            "records": self.records,
        }


def _signature(row: Row) -> str:
    return "" if row["verdict"] is None else f"{row['verdict']}|{row['cause']}|{row['recovered']}"


def _is_finished(row: Row) -> bool:
    return row["verdict"] is not None and row["outcome"] != "unknown"
