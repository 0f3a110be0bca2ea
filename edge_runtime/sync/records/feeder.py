"""From the journal into the outbox: every statement about a part once, in one transaction with how far it was read.

Rows that may still change are remembered in the outbox together with what was told of them (`parts.py`), and so is how
far each table was read (`places.py`). A journal that was set aside or deleted is read to its end before the one in its
place.
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
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.mark import read_mark
from edge_runtime.sync.outbox.pictures import PictureQueue
from edge_runtime.sync.outbox.place import Place
from edge_runtime.sync.records.batch import Batch
from edge_runtime.sync.records.format import drop_record, own_event
from edge_runtime.sync.records.former import find_former, undelivered
from edge_runtime.sync.records.journal import JournalTail
from edge_runtime.sync.records.parts import LINGER_NS, Parts
from edge_runtime.sync.records.places import TABLES, Places
from edge_runtime.sync.records.slices import Slices

log = logging.getLogger(__name__)

FORMER_NS = 5 * SECOND  # `run` may write into a deleted journal for a moment before it sees that it is gone


class Feeder:
    """Used by the thread that owns the outbox. pictures_of: verdicts whose pictures are to be uploaded."""

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
        self._place = Place(outbox)
        self._pictures = PictureQueue(outbox)
        self._journal: str | None = None
        self._places = Places(tail)
        self._parts = Parts(wall, pictures_of)
        self._slices = Slices(tail, self._places, self._parts, wall, with_words=with_words)
        self._finished: set[str] = set()  # former journals that were read to their end
        self._looked_ns = 0
        self._has_more = True  # rows wait that the last look did not reach
        self.records = 0

    @property
    def has_more(self) -> bool:
        """Whether it is worth looking again at once."""
        return self._has_more

    @property
    def reads_former(self) -> bool:
        """Another journal lies under the name, and its turn has not come yet."""
        return self._tail.file.is_former

    @property
    def rows_behind(self) -> int:
        """Parts of the journal that are read when there is time."""
        return self._slices.rows_behind

    def outbox_renewed(self) -> None:
        """Another file lies under the outbox: read from it where to go on."""
        self._journal = None

    def look(self, *, may_catch_up: bool) -> Batch | None:
        """What is new, to be given to `commit`; None when nothing is. Raises StorageError when it cannot be read."""
        has_news = self._tail.file.has_news()
        if self._journal != self._tail.file.identity:
            self._adopt()
        elif has_news:
            self._check_place()
        if not self._tail.file.is_former:
            self._finished.discard(self._tail.file.identity)
        is_time = self._wall.monotonic() - self._looked_ns >= LINGER_NS // 2
        is_former, has_old = self._tail.file.is_former, may_catch_up and bool(self._slices.behind)
        if not (has_news or self._has_more or is_time or has_old or is_former):
            return None
        if not is_former:
            return self._read(may_catch_up, look_again=has_news or is_time)
        batch = self._read(may_catch_up, look_again=True)
        if batch is None and not self._slices.behind and self._tail.file.may_let_go(FORMER_NS):
            if last_words := self._close_open():
                return last_words
            self._let_go()
            return self.look(may_catch_up=may_catch_up)
        return batch

    def _close_open(self) -> Batch:
        """Parts of the former journal whose outcome will never be written there: decisions and outcomes add up."""
        batch = Batch()
        self._attempt(lambda: self._slices.close_open(batch))
        return batch

    def _let_go(self) -> None:
        """The former journal was read as far as it goes: the one in its place is next."""
        self._finished.add(self._tail.file.identity)
        self._tail.file.close()
        self._has_more = True

    def _read(self, may_catch_up: bool, look_again: bool) -> Batch | None:
        batch, slices = Batch(), self._slices
        self._has_more, slices.found_more = True, False  # until it is committed: a full disk must not make us forget
        if look_again:
            self._looked_ns = self._wall.monotonic()
        self._attempt(lambda: slices.read_runs(batch))
        for table in ("event", "loss"):
            self._attempt(partial(slices.read_new, batch, table))
        self._attempt(lambda: slices.read_parts(batch))
        self._attempt(lambda: slices.read_open(batch))
        for table in ("label", "request"):  # behind the parts that they are about
            self._attempt(partial(slices.read_new, batch, table))
        if may_catch_up and slices.behind and not slices.found_more:
            self._attempt(lambda: slices.read_behind(batch))
        if batch:
            return batch
        self._has_more = slices.found_more
        return None

    def _attempt(self, read: Callable[[], None]) -> None:
        """One table of a damaged former journal that cannot be read is no reason to leave the others."""
        try:
            read()
        except StorageError as err:
            if not self._tail.file.is_former:
                raise
            log.warning("feeder.former journal=%s %s", self._journal, err)

    def commit(self, batch: Batch) -> None:
        """Inside a transaction of the outbox; `committed` must follow."""
        self._outbox.add(batch.drafts)
        self._pictures.add(batch.pictures)
        batch.store(self._place)
        self._places.store(self._place, batch.positions, batch.seen)

    def committed(self, batch: Batch) -> None:
        self._places.stored(batch.positions, batch.seen)
        self._parts.committed(batch)
        self._slices.committed(batch)
        self.records += len(batch.drafts)
        self._has_more = self._slices.found_more

    # -- where to go on -----------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Find the place in this journal: from the outbox, else from the mark beside it, else its beginning."""
        outbox = self._outbox
        before = self._place.journal()
        if before not in ("", self._tail.file.identity) and before not in self._finished:
            self._look_for_former(before)
        identity = self._tail.file.identity
        if before != identity:
            self._begin(before, identity)
            self._places.given = {}
        self._load()
        self._journal, self._has_more = identity, True
        self._check_place()
        if self._places.lacks_prints:
            with outbox.transaction():
                self._places.print_first(self._place)

    def _look_for_former(self, name: str) -> None:
        """A journal that was set aside is read to its end before the one in its place."""
        former = find_former(self._tail.file.path, name)
        if former is None:
            return
        log.warning("feeder.former file=%s is read first", former.name)
        try:
            self._tail.file.open_former(former)
        except StorageError as err:
            log.error("feeder.former %s", err)
            self._let_go()
            self._finished.add(name)
            self._tail.file.has_news()

    def _load(self) -> None:
        rows = self._place.open_rows()
        self._outbox.form = replace(self._outbox.form, journal=self._name())
        self._places.load(self._place)
        self._parts.load({row: told for (table, row), told in rows.items() if table == "part"})
        self._slices.load({row for table, row in rows if table == "run"}, self._place.behind())

    def _name(self) -> str:
        """Row numbers that were given twice belong to two journals, as far as a consumer is concerned."""
        journal, again = self._place.journal(), self._place.times_gone_back()
        return f"{journal}.{again}" if again else journal

    def _begin(self, before: str, identity: str) -> None:
        """Another journal, or the same one under a new name because it went back: common rows are not read again."""
        outbox, place = self._outbox, self._place
        mark = read_mark(outbox.path)
        known = mark.delivered if mark and mark.journal == identity and not before else {}
        lost = dict(outbox.rows_lost) if not before and mark and mark.journal not in ("", identity) else {}
        if before:
            self._load()
            known = {table: self._places.common(table) for table in TABLES}
        log.info("feeder.journal journal=%s before=%s from_part=%d", identity, before or "none", known.get("part", 0))
        with outbox.transaction():
            place.go_to({table: known.get(table, 0) for table in TABLES})
            place.begin_journal(identity)
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
            self._place.go_to(back)
            self._place.went_back()
            detail = {"journal": self._journal, "from": before, "to": back}
            self._outbox.add([own_event(EventKind.SYNC_WENT_BACK, detail, self._wall)])
            self._outbox.add([drop_record(self._wall, what, "journal_lost", count) for what, count in lost.items()])
        self._load()
        self._has_more = True

    def report(self) -> Mapping[str, Any]:
        return {
            "journal": self._journal or "",
            "positions": dict(self._places.rows),
            "open_parts": len(self._parts.open),
            "rows_behind": self.rows_behind,
            "records": self.records,
        }
