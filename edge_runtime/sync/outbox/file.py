"""The outbox: records that wait for the cloud, in a SQLite file of their own, used by one thread.

Why a copy of the journal and not the journal itself: a part's row changes three times (trigger, decision, outcome)
and a record that was sent must never change, so each statement about a part becomes a record with a number of its own.
Writing those numbers into the journal would make its writer wait for us, and `run` must pay nothing for the uplink.
So the journal stays the source of truth: `feeder` tails it read-only and commits the new records and its own position
in one transaction here. What finds no room here is not lost, it stays in the journal; what was delivered is deleted
here, and the journal keeps its own time.

(epoch, seq) names a record for ever. A file that was lost or damaged cannot know which numbers were seen outside, so
a new file draws a new epoch, says so in its first record, and reads the journal again from the last mark. A file that
was copied, cloned with its card, or brought back from a backup gets a new epoch, too (`seal.py`, `epoch.py`).
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from edge_runtime.core.files import identity_of
from edge_runtime.core.machine import Machine
from edge_runtime.recording.database import set_aside
from edge_runtime.recording.trouble import is_damage
from edge_runtime.recording.wall_clock import WallClock, machine_boot
from edge_runtime.sync.outbox.counts import Counts
from edge_runtime.sync.outbox.epoch import Before, begin_epoch, begin_file, skip_reserved, why_new
from edge_runtime.sync.outbox.keeper import Keeper
from edge_runtime.sync.outbox.lock import OutboxLock
from edge_runtime.sync.outbox.mark import read_mark, take_mark, write_mark
from edge_runtime.sync.outbox.meta import Meta, read_meta, write_machine
from edge_runtime.sync.outbox.pictures import PictureQueue
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.outbox.schema import DamagedRecord, NewerOutbox, open_outbox
from edge_runtime.sync.outbox.seal import Last, judge, read_last
from edge_runtime.sync.records.format import RecordFormat

log = logging.getLogger(__name__)


class Outbox(Queue):
    """The queue in its file. machine: which machine the folder is on; boot: which boot of it this is."""

    def __init__(
        self,
        path: Path,
        form: RecordFormat,
        wall: WallClock,
        machine: Callable[[Path], Machine] = lambda folder: {},
        boot: str = "",
    ) -> None:
        super().__init__(form, wall, Keeper(path, (boot or machine_boot()).replace("-", "")))
        self.path = path
        self._machine = machine
        self._files: dict[str, tuple[int, int] | None] = {}
        self._lock = OutboxLock(path)
        self.aside: list[str] = []  # files that were damaged and set aside
        self.why_new = ""  # why the next file is a new one
        self.lost: Last | None = None  # what waited in the file before it, where that cannot be read
        self.rows_lost: dict[str, int] = {}  # records of the journal that waited there: gone, unless it is read again

    # -- opening and closing ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open or make the file; a damaged one is set aside. Raises OSError, StorageError or sqlite3.Error."""
        self.lock()
        try:
            self._open()
        except (sqlite3.Error, NewerOutbox) as err:
            if not self.set_aside_if_damaged(err):
                raise
            self._open()

    def _open(self) -> None:
        keeper, connection = self._keeper, open_outbox(self.path, secrets.token_hex(8))
        keeper.read()
        try:
            meta = read_meta(connection)
            self.epoch, self.waiting, self.last_seq = meta.epoch, meta.waiting, meta.last_seq
            same_life = keeper.last if keeper.last and keeper.last.epoch == self.epoch else None
            self.counts = Counts.of(connection, meta.made, same_life, self.waiting, self.last_seq)
            self._connection = connection
            self._note_files()
            keeper.open()
            machine = dict(self._machine(self.path.parent))
            if self.last_seq == 0:
                self._begin()
            else:
                machine = self._judge(meta, machine, same_life)
            if machine != meta.machine or not keeper.is_for(self.epoch):
                with self.transaction():
                    keeper.write_seal(self.epoch, self.last_seq)
                    write_machine(self.db, machine)
        except BaseException:
            self.lost = self._last() if self._connection else self.lost
            self._connection = None  # nobody may send from a file that was not judged
            connection.close()
            keeper.close()
            raise
        self.lost = None
        self._write_last()

    def _begin(self) -> None:
        """A new file: say what came before it, as far as anybody knows."""
        lost = self.lost or self._keeper.last
        before = Before(self.why_new, self._keeper.seal, lost, read_mark(self.path), self.aside[-1:])
        self.rows_lost = begin_file(self, before) or self.rows_lost
        self.why_new, self.lost = "", None

    def _judge(self, meta: Meta, now: Machine, last: Last | None) -> dict[str, tuple[str, ...]]:
        """Go on in this epoch, or begin another; what is known of the machine from here on."""
        verdict = judge(self.epoch, self.last_seq, meta.seal, self._keeper.seal, self._keeper.last, self._keeper.boot)
        if why := why_new(verdict.why, meta.machine, now):
            begin_epoch(self, secrets.token_hex(8), self.why_new or why, last, self.aside[-1:])
            self.why_new = ""
            return dict(now)
        if verdict.after > self.last_seq:
            skip_reserved(self, verdict.after)
        return {**meta.machine, **now}  # what root could read is still known when the service cannot

    def close(self, *, unlock: bool = True, in_order: bool = True) -> None:
        """in_order: note that nothing came after what the file now says."""
        connection = self._connection
        if connection:
            with suppress(sqlite3.Error, OSError):
                if in_order and not self.is_gone():
                    stamp = self._keeper.write_seal(self.epoch, self.last_seq, closed=self.last_seq)
                    connection.execute("UPDATE meta SET seal = ?", (stamp,))
            self._connection = None
            try:
                connection.close()
            except sqlite3.Error as err:
                log.warning("outbox.close error=%s", err)
        self._keeper.close()
        if unlock:
            self._lock.release()

    def lock(self) -> None:
        """Raises StorageError when another process has it, OSError."""
        self._lock.take()

    def set_aside_if_damaged(self, error: Exception) -> bool:
        """Whether the file was no good and now lies under another name. Raises OSError when it cannot be moved."""
        if isinstance(error, NewerOutbox):
            what = "newer"
        elif is_damage(error):
            what = "damaged"
        else:
            return False
        self.lost = self._last() if self._connection else self.lost or read_last(self.path)
        self.close(unlock=False, in_order=False)
        name = set_aside(self.path, what, self.wall.now())
        log.error("outbox.set_aside file=%s why=%s", name, error)
        self.aside.append(name)
        self.why_new = what
        return True

    # -- is it still ours ---------------------------------------------------------------------------------------------

    def is_gone(self) -> bool:
        """Somebody deleted or replaced the file: SQLite would write on happily into nowhere."""
        return self._connection is not None and identity_of(self.path) != self._files[""]

    def lost_companion(self) -> str:
        """The log or the shared memory that was deleted or replaced under us; empty: both are there."""
        if self._connection is None:
            return ""
        lost = (name for name, file in self._files.items() if name and identity_of(_beside(self.path, name)) != file)
        return next(lost, "")

    def mend_companions(self) -> None:
        """The deleted log is still open here and holds what is not in the database yet: put it there, begin a new one.

        Raises sqlite3.Error where that cannot be done; the file is then as good as damaged.
        """
        busy, *_ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("the outbox's log was removed and cannot be put into the database")
        self.close(unlock=False)
        self._open()

    def rescue(self) -> None:
        """The file, and perhaps its folder, was deleted under us, and is still open here: put all of it into a new one.

        A new epoch begins, because the old one may go on elsewhere. Raises sqlite3.Error, OSError.
        """
        old = self.db
        self.lock()
        fresh = self.path.with_suffix(".rescued")
        fresh.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(fresh)) as new:
                old.backup(new)
                new.execute("UPDATE meta SET seal = 0")
                new.commit()
        except sqlite3.Error:
            fresh.unlink(missing_ok=True)
            raise
        self.close(unlock=False, in_order=False)
        if any(_beside(self.path, name).exists() for name in ("", "-wal")):
            set_aside(self.path, "replaced", self.wall.now())
        fresh.replace(self.path)
        self.why_new = "removed"
        self._open()

    def begin_anew(self) -> None:
        """What the deleted file held cannot be had: a new one, which counts what is lost."""
        self.lost, self.why_new = self._last(), "lost"
        self.close(unlock=False, in_order=False)
        self.lock()
        self._open()

    def read_back(self) -> None:
        """Look at the file as a stranger would, who has nothing in memory. Raises DamagedRecord, sqlite3.Error."""
        if self._keeper.is_touched():  # what is in memory is right
            log.warning("outbox.seal the files beside %s were touched or removed: written anew", self.path)
            self._keeper.open()
            with self.transaction():
                self._keeper.write_seal(self.epoch, self.last_seq)
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as stranger:
            epoch, waiting = stranger.execute("SELECT epoch, waiting FROM meta").fetchone()
            (highest,) = stranger.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
            rows = stranger.execute("SELECT seq, crc, payload FROM record ORDER BY seq DESC LIMIT 50").fetchall()
        if (epoch, waiting, highest) != (self.epoch, self.waiting, self.last_seq):
            raise DamagedRecord(
                f"the outbox on the disk ends at {epoch}/{highest} with {waiting} waiting, and what was written at "
                f"{self.epoch}/{self.last_seq} with {self.waiting}"
            )
        for seq, crc, payload in rows:
            if not isinstance(payload, bytes) or zlib.crc32(payload) != crc:
                raise DamagedRecord(f"record {seq} is not what was written")

    def _note_files(self) -> None:
        self._files = {name: identity_of(_beside(self.path, name)) for name in ("", "-wal", "-shm")}

    def mark(self) -> None:
        """Note beside the file up to where all was delivered. Raises OSError."""
        write_mark(self.path, take_mark(self))
        self._pictures = PictureQueue(self).count()
        self._write_last()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
