"""Looks after the journal's files for its writer: notices what others do to them, rescues the rows, keeps the mark.

The writer asks `look` before and after it writes, tells `committed` after each commit, and calls `rescue` when
something was found. All of it runs in the writer's thread but the reading back, which only leaves word for the next
`look`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.recording.file_watch import Disturbance, FileWatch, Kind
from edge_runtime.recording.going_back import (
    behind_mark,
    counted_losses,
    given_numbers,
    journal_identity,
    newest_rows,
    oldest_rows,
)
from edge_runtime.recording.high_water import HighWater, LastWords, MarkFile
from edge_runtime.recording.read_back import WHOLE_LIMIT_S, ReadBack, examine
from edge_runtime.recording.rescue import Unrescued, copy_whole, put_in_place, remove_companions, secure_log
from edge_runtime.recording.wall_clock import machine_boot

log = logging.getLogger(__name__)

STOP_WAIT_S = 1.0
WHOLE_AGAIN_S = 60.0
BRIEF_LIMIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Rescue:
    """What was done: the log brought in, or the whole copied. After `close`, `settle` must follow."""

    what: str
    how: str  # log | copy
    copy: Path | None = None


class FileGuard:
    """Of one journal. utc_ns: the wall clock, for the mark and for names. wake: lets the writer turn now."""

    def __init__(self, journal: Path, utc_ns: Callable[[], int], wake: Callable[[], None]) -> None:
        self._journal = journal
        self._utc_ns = utc_ns
        self._wake = wake
        self._watch = FileWatch(journal)
        self._file = MarkFile(journal)
        self._check = ReadBack(journal, lambda: self.mark, self._file.sync, self._found_damage)
        self._damage = ""
        self._has_spoken = False
        self._whole_s = float("-inf")
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}  # of tables that got no row since `pruned`
        self._given: dict[str, int] = {}
        self._counted: tuple[int | None, dict[str, int]] = (None, {})  # as of this row of `loss`
        self._boot = machine_boot()
        self.mark: HighWater | None = None  # of what was committed, whatever became of the file
        self.words: LastWords | None = None  # of an earlier run, until they are told
        self.files = self._check.files

    def start(self) -> None:
        self._check.start()

    def stop(self) -> None:
        self._check.stop(STOP_WAIT_S)

    def close(self) -> None:
        """The mark is on the disk, and the last word of this process about it."""
        try:
            self._file.sync()
        except OSError as err:
            log.warning("journal.mark is not on the disk: %s", err)
        self._file.close()

    # -- the mark -----------------------------------------------------------------------------------------------------

    def open_mark(self) -> None:
        """Before the journal is opened. What this process has committed counts for more than what the file says."""
        try:
            mark, words = self._file.open()
        except OSError as err:
            log.warning("journal.mark cannot be kept: %s", err)
            return
        self.mark = self.mark or mark
        self.words = None if self._has_spoken else words

    def opened(self, connection: sqlite3.Connection) -> None:
        """The journal is open and holds the present run; what was missing has been counted into it."""
        self._damage = ""
        with suppress(sqlite3.OperationalError):  # no room: the log will do
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # pages written once leave the log's risk
        self.pruned(connection)
        self.committed(connection, journal_identity(connection))
        self._watch.stamp()
        self.unspeak()
        try:
            self._file.sync()
        except OSError as err:
            log.warning("journal.mark is not on the disk: %s", err)

    def pruned(self, connection: sqlite3.Connection) -> None:
        """Other rows than before are the oldest. An empty table begins behind its last number."""
        self._counted = None, {}
        self._given, self._last = given_numbers(connection), newest_rows(connection)
        self._first = {table: row + 1 for table, row in self._given.items()} | oldest_rows(connection)

    def committed(self, connection: sqlite3.Connection, name: str = "") -> None:
        """Rows came to be durable. Raises Unrescued when fewer are there than before."""
        given = given_numbers(connection)
        if self.mark and not name and (behind := behind_mark(given, self.mark)):
            raise Unrescued(f"the files changed under the open journal: {behind}")  # an older log lies over it
        last = self._last | {table: row for table, row in given.items() if row != self._given.get(table)}
        first = {table: self._first.get(table, 1) for table in last}
        name = name or (self.mark.journal if self.mark else "")
        if self._counted[0] != given.get("loss", 0):
            self._counted = given.get("loss", 0), counted_losses(connection)
        self.mark = HighWater(name, last, first, given, self._utc_ns(), self._counted[1], self._boot)
        try:
            if not self._file.is_there():
                self._file.open()
            self._file.write(self.mark)
        except OSError as err:
            log.warning("journal.mark cannot be kept: %s", err)

    def speak(self, words: LastWords) -> None:
        """In case nobody can write any more before the end."""
        try:
            if not self._file.is_there():
                self._file.open()
            self._file.speak(words)
            self._has_spoken = True
        except OSError as err:
            log.warning("journal.mark cannot be kept: %s", err)

    def unspeak(self) -> None:
        """What the last words spoke of is in the journal."""
        if not (self.words or self._has_spoken):
            return
        self.words, self._has_spoken = None, False
        try:
            self._file.speak(None)
        except OSError as err:
            log.warning("journal.mark cannot be kept: %s", err)

    # -- the files ----------------------------------------------------------------------------------------------------

    def look(self) -> Disturbance | None:
        """What was done to the files since the last turn, or found by reading back."""
        found = self._watch.look()
        if found is not None and found.kind is not Kind.CONTENT:
            return found
        words = self._damage
        if found is not None and not words:
            words = examine(self._journal, self.mark, whole_limit_s=self._whole_limit_s())
            if not words:
                log.warning("journal.touched %s; its rows are as they were", found.what)
                self._watch.accept()
                return None
        return Disturbance(Kind.CONTENT, f"{found.what}: {words}" if found else words) if words else None

    def _whole_limit_s(self) -> float:
        """All pages the first time; somebody who writes every second must not hold up the journal each time."""
        now_s = time.monotonic()
        is_due, self._whole_s = now_s - self._whole_s >= WHOLE_AGAIN_S, now_s
        return WHOLE_LIMIT_S if is_due else BRIEF_LIMIT_S

    def look_for_swap(self) -> Disturbance | None:
        """After the writer wrote: from here on nothing may change."""
        return self._watch.look_for_swap()

    def _found_damage(self, words: str) -> None:
        log.error("journal.check %s: %s", self._journal.name, words)
        self._damage = words
        self._wake()

    def rescue(self, connection: sqlite3.Connection, found: Disturbance) -> Rescue:
        """With the connection that still has the rows. Raises Unrescued, or OSError and sqlite3.Error: try again."""
        if found.kind is Kind.COMPANIONS and secure_log(connection):
            return Rescue(found.what, "log")
        return Rescue(found.what, "copy", copy_whole(connection, self._journal))

    def settle(self, rescue: Rescue, close: Callable[[], None]) -> str:
        """Close the old connection and leave the files as the next opening wants them; what was set aside."""
        strays = self._watch.strays()
        aside = ""
        if rescue.copy:
            why = "replaced" if self._watch.is_replaced() else "damaged"
            aside = put_in_place(rescue.copy, self._journal, why, self._utc_ns(), strays)
            close()  # SQLite removes a log by name: by now there is none
        else:
            remove_companions(self._journal, strays)
            close()
            remove_companions(self._journal)
        return aside
