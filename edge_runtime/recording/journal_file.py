"""The journal's file as its writer holds it: opened under the lock, looked after while it is open, mended, set aside.

`look` before the writer writes, `opened` for the connection to write with, `prove` after a commit; `let_go` and `mend`
when one of them, or a commit, raised. All of it in the writer's thread. What a file does not hold that was on the disk
before is counted into it when it is opened, told in the log, and stays a word of health.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.recording.database import FileLock, NewerSchema, set_aside
from edge_runtime.recording.file_guard import FileGuard
from edge_runtime.recording.file_watch import Disturbance
from edge_runtime.recording.going_back import all_of, find_shortfall
from edge_runtime.recording.high_water import LastWords
from edge_runtime.recording.log_salvage import salvage_log
from edge_runtime.recording.read_back import WHOLE_LIMIT_S, check_whole
from edge_runtime.recording.records import NOTHING, Before, RecordWriter, RunInfo
from edge_runtime.recording.rescue import Unrescued, finish_copy, refuse_emptied
from edge_runtime.recording.row_retention import RowRetention
from edge_runtime.recording.schema import open_for_writing
from edge_runtime.recording.trouble import is_damage
from edge_runtime.recording.wall_clock import WallClock

log = logging.getLogger(__name__)

START_CHECK_S = 0.5  # enough for 10 MB: what a start looks at before it writes; the rest is read back later
RESCUE_TRIES = 3  # then the rows are given up and counted
TOLD_NS = 600 * SECOND  # how long health is degraded by rows that are missing; its detail says so until the end


class JournalFile:
    """One run in one file, or in several where one was lost. wake: lets the writer turn now."""

    def __init__(self, path: Path, info: RunInfo, wall: WallClock, clock: Clock, wake: Callable[[], None]) -> None:
        self.path = path
        self._info = info
        self._wall = wall
        self._clock = clock
        self._lock = FileLock(path)
        self._guard = FileGuard(path, wall.now, wake)
        self._models: dict[str, str] = {}  # that came to work in this run
        self._started_ns = clock()
        self.is_open = False
        self._is_disturbed = False  # the open connection has rows that the files under our names have not
        self._rescue_tries = 0
        self._is_proven = True  # a commit succeeded since the last one was set aside: damage would be news
        self._aside: dict[str, str] = {}  # what was set aside and is not told yet
        self._rescue: dict[str, str] = {}  # what was rescued and is not told yet
        self.writer: RecordWriter | None = None
        self.run_id: int | None = None
        self.word, self._word_until_ns = "", 0  # of rows that are missing, or were rescued
        self.quarantined: list[str] = []

    def begin(self, started_ns: int) -> None:
        """A run begins; its row is written with the first opening."""
        self._started_ns = started_ns
        self._guard.start()

    def learn_model(self, label: str, digest: str) -> None:
        self._models[label] = digest
        if self.writer:
            self.writer.learn_model(label, digest)

    @property
    def is_worrying(self) -> bool:
        """Whether `word` was said lately."""
        return self._clock() < self._word_until_ns

    # -- while it is open ---------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Was somebody else at the files since the last turn? Then what they no longer hold is brought into them."""
        if self.writer and self.is_open:
            self._keep_rows(self.writer, self._guard.look())

    def opened(self) -> RecordWriter:
        """The writer of the open file. Raises whatever keeps it from being opened."""
        return self.writer if self.writer and self.is_open else self._open()

    def prove(self) -> RecordWriter:
        """See that what was committed lies in the files under our names, before anybody hears that it is durable."""
        writer = self.opened()
        self._is_proven = True
        self._guard.committed(writer.connection)
        if (swapped := self._guard.look_for_swap()) is not None:
            self._keep_rows(writer, swapped)
            writer = self._open()
        return writer

    def prune(self, old: RowRetention) -> None:
        """Delete the few rows that are old enough to go now, where the file is open."""
        if self.writer and self.is_open:
            self.writer.prune(old)
            self._guard.pruned(self.writer.connection)
            self._guard.look_for_swap()

    def end(self) -> None:
        """The run ended in good order."""
        writer = self.opened()
        writer.end()
        self._guard.committed(writer.connection)

    def speak(self, words: LastWords | None) -> None:
        """Leave word of what would be missing if the end came now; None takes it back."""
        if words is None:
            self._guard.unspeak()
        else:
            self._guard.speak(words)

    def close(self, *, is_last: bool) -> None:
        """is_last: the writer ends, and somebody else may have the file."""
        if is_last:
            self._guard.stop()  # its connection would keep the log from being closed with ours
        self._close()
        if is_last:
            self._lock.free()
            self._guard.close()

    def _close(self) -> None:
        self.is_open = False
        if self.writer:
            try:
                self.writer.close()
            except sqlite3.Error as err:
                log.warning("journal.close error=%s", err)

    def _keep_rows(self, writer: RecordWriter, found: Disturbance | None) -> None:
        """Bring what the open connection holds into files that others find; `_open` must follow."""
        self._is_disturbed = found is not None
        if found is None:
            return
        log.error("journal.disturbed %s", found.what)
        with self._guard.files:
            rescue = self._guard.rescue(writer.connection, found)
            aside = self._guard.settle(rescue, self._close)
        self._is_disturbed, self._rescue_tries = False, 0
        self._lock.free()  # its file may be gone, too
        self._rescue = {"what": found.what, "how": rescue.how, "file": aside}

    # -- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> RecordWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.take()  # two writers would each close the other's open parts
        with self._guard.files:
            finish_copy(self.path)
            self._guard.open_mark()
            refuse_emptied(self.path)
            self._rescue |= salvage_log(self.path, self._guard.mark)
            connection = open_for_writing(self.path)
            try:
                before = self._before(connection)
                if not self.writer or not self.writer.resume(connection, before):
                    self.writer = self._begin(connection, before)
                self._guard.opened(connection)
            except BaseException:
                connection.close()
                raise
        self.is_open, self.run_id = True, self.writer.run_id
        self._tell(before)
        return self.writer

    def _before(self, connection: sqlite3.Connection) -> Before:
        """What this file does not hold that was on the disk before, and what an earlier run could not write."""
        short = find_shortfall(connection, self._guard.mark)
        limit_s = 0.0 if self.writer else START_CHECK_S
        if words := check_whole(connection, WHOLE_LIMIT_S if short else limit_s):
            raise Unrescued(words)  # a copy made while it was written, or an older log over a newer database
        if self._aside and self._guard.mark:
            short = all_of(self._guard.mark, "set_aside") or short
        if not (short or self._aside or self._guard.words or self._rescue):
            return NOTHING
        return Before(short, self._aside, self._guard.words, self._rescue)

    def _begin(self, connection: sqlite3.Connection, before: Before) -> RecordWriter:
        writer = RecordWriter(connection, self._wall)
        writer.begin(self._info, self._started_ns, before)
        for label, digest in self._models.items():
            writer.learn_model(label, digest)
        if writer.recovered:
            log.warning("journal.recovered parts=%d had no verdict when the box stopped", writer.recovered)
        if before.words:
            log.error("journal.unwritten an earlier run could not write parts=%d", before.words.parts)
        return writer

    def _tell(self, before: Before) -> None:
        """In log and health: what is missing, or was nearly. The journal itself has it already."""
        self._aside, self._rescue = {}, {}
        if before.short:
            self.word = before.short.sentence() + (f", but in {before.aside['file']}" if before.aside else "")
            self._word_until_ns = 0 if before.aside else self._clock() + TOLD_NS
            log.error("journal.short %s", self.word)
        elif before.rescue:
            self.word, self._word_until_ns = f"{before.rescue['what']}; its rows were rescued", 0
            log.warning("journal.rescued %s", self.word)

    # -- when it cannot be written ------------------------------------------------------------------------------------

    def let_go(self, error: Exception) -> bool:
        """Close the connection, but where it is all that has the rows. Answers whether it was closed: rows that were
        committed into files that are gone are counted at the next opening."""
        self._rescue_tries += self._is_disturbed
        if self._is_disturbed and self._rescue_tries < RESCUE_TRIES and not isinstance(error, Unrescued):
            log.warning("journal.rescue is tried again: %s", error)
            return False
        self._close()
        self._is_disturbed, self._rescue_tries = False, 0
        return True

    def mend(self, error: Exception) -> str | None:
        """Where the file itself is what is wrong, begin a new one; the old one keeps lying there for somebody to look
        into. Answers what to say of it; None where the file is not to blame. Raises OSError."""
        if isinstance(error, NewerSchema):
            return self._set_aside("newer", error)
        if (is_damage(error) and self._is_proven) or isinstance(error, Unrescued):
            return self._set_aside("damaged", error)
        return None

    def _set_aside(self, what: str, error: Exception) -> str:
        with self._guard.files:
            aside = set_aside(self.path, what, self._wall.now()) if self.path.exists() else ""
        self.writer, self._is_proven = None, False
        if not aside:
            return ""
        log.error("journal.set_aside file=%s why=%s", aside, error)
        self.quarantined.append(aside)
        self._aside = {"file": aside, "why": f"{what}: {error}"}
        return f"the journal was {what} and set aside as {aside}; a new one begins"
