"""The outbox: records that wait for the cloud, in a SQLite file of their own, used by one thread.

Why a copy of the journal and not the journal itself: a part's row changes three times (trigger, decision, outcome)
and a record that was sent must never change, so each statement about a part becomes a record with a number of its own.
Writing those numbers into the journal would make its writer wait for us, and `run` must pay nothing for the uplink.
So the journal stays the source of truth: `feeder` tails it read-only and commits the new records and its own position
in one transaction here. What finds no room here is not lost, it stays in the journal; what was delivered is deleted
here, and the journal keeps its own time. A group of 500 rows costs one commit, about 15 us a record.

(epoch, seq) names a record for ever. A file that was lost or damaged cannot know which numbers were seen outside, so
a new file draws a new epoch, says so in its first record, and reads the journal again from the last mark. A file that
was copied, cloned with its card, or brought back from a backup gets a new epoch, too (`outbox_seal`, `outbox_epoch`).
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.core.files import identity_of
from edge_runtime.core.machine import Machine
from edge_runtime.recording.pruned import ranges
from edge_runtime.recording.trouble import is_damage, set_aside
from edge_runtime.recording.wall_clock import WallClock, machine_boot
from edge_runtime.sync.outbox.counts import Counts
from edge_runtime.sync.outbox.epoch import begin_epoch, begin_file, skip_reserved, why_new
from edge_runtime.sync.outbox.keeper import Keeper
from edge_runtime.sync.outbox.lock import OutboxLock
from edge_runtime.sync.outbox.mark import Mark, write_mark
from edge_runtime.sync.outbox.schema import DamagedRecord, NewerOutbox, open_outbox
from edge_runtime.sync.outbox.seal import Last, judge, read_last
from edge_runtime.sync.records.records import Draft, Kind, RecordFormat

log = logging.getLogger(__name__)

OUTBOX = "outbox.db"
SYNC_EVERY = 4  # deletions that a power cut may undo, at most
MARK_ROWS = 10_000  # records looked through for the first ones that were not delivered


@dataclass(frozen=True, slots=True)
class Waiting:
    """One record that waits."""

    seq: int
    kind: str
    payload: bytes


class Outbox:
    """Records in, records out, deleted when delivered. Every method may raise sqlite3.Error or OSError; nothing is
    half done. machine: which machine the folder is on; boot: which boot of it this is.
    """

    def __init__(
        self,
        path: Path,
        form: RecordFormat,
        wall: WallClock,
        machine: Callable[[Path], Machine] = lambda folder: {},
        boot: str = "",
    ) -> None:
        self.path = path
        self.form = form
        self.wall = wall
        self._machine = machine
        self._keeper = Keeper(path, (boot or machine_boot()).replace("-", ""))
        self._connection: sqlite3.Connection | None = None
        self._files: dict[str, tuple[int, int] | None] = {}
        self._lock = OutboxLock(path)
        self._pictures = 0
        self.epoch = ""
        self.last_seq = 0
        self.waiting = 0
        self.counts = Counts()
        self.added = self.settled = self.commits = self._deletions = 0
        self.aside: list[str] = []  # files that were damaged and set aside
        self.why_new = ""  # why the next file is a new one
        self.lost: Last | None = None  # what waited in the file before it, where that cannot be read
        self.rows_lost: dict[str, int] = {}  # records of the journal that waited there: gone, unless it is read again

    # -- opening and closing ------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the outbox is not open")
        return self._connection

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
            stamp, written_on = self._read_meta(connection, keeper.last)
            self._connection = connection
            self._note_files()
            keeper.open()
            machine = dict(self._machine(self.path.parent))
            if self.last_seq == 0:
                begin_file(self, keeper.seal, keeper.last)
            else:
                machine = self._judge(stamp, written_on, machine)
            if machine != written_on or not keeper.is_for(self.epoch):
                with self.transaction():
                    keeper.write_seal(self.epoch, self.last_seq)
                    self.db.execute("UPDATE meta SET machine = ?", (json.dumps(machine),))
        except BaseException:
            self.lost = self._last() if self._connection else self.lost
            self._connection = None  # nobody may send from a file that was not judged
            connection.close()
            keeper.close()
            raise
        self.lost = None
        self._write_last()

    def _read_meta(self, db: sqlite3.Connection, last: Last | None) -> tuple[int, dict[str, tuple[str, ...]]]:
        """Takes over what the file says of itself; the seal's stamp, and the machine it was written on."""
        meta = db.execute("SELECT epoch, waiting, seal, made, machine FROM meta").fetchone()
        highest = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        newest = db.execute("SELECT max(seq) FROM record").fetchone()[0] or 0
        if meta is None or newest > (highest[0] if highest else 0):
            raise DamagedRecord("the outbox contradicts itself")
        self.epoch, self.waiting, self.last_seq = str(meta[0]), int(meta[1]), int(highest[0]) if highest else 0
        try:
            made, written_on = json.loads(meta[3]), json.loads(meta[4])
            machine = {str(name): tuple(map(str, values)) for name, values in written_on.items()}
        except (ValueError, TypeError, AttributeError) as err:
            raise DamagedRecord(f"the outbox is not what was written: {err}") from err
        same_life = last if last and last.epoch == self.epoch else None
        self.counts = Counts.of(db, made, same_life, self.waiting, self.last_seq)
        return int(meta[2]), machine

    def _judge(
        self, stamp: int, before: dict[str, tuple[str, ...]], now: dict[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        """Go on in this epoch, or begin another; what is known of the machine from here on."""
        seal, last, boot = self._keeper.seal, self._keeper.last, self._keeper.boot
        verdict = judge(self.epoch, self.last_seq, stamp, seal, last, boot)
        if why := why_new(verdict.why, before, now):
            begin_epoch(self, why, secrets.token_hex(8), last if last and last.epoch == self.epoch else None)
            return now
        if verdict.after > self.last_seq:
            skip_reserved(self, verdict.after)
        return before | now  # what root could read is still known when the service cannot

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

    def _last(self) -> Last:
        counts = self.counts
        made, own, rows = (dict(+counter) for counter in (counts.made, counts.own, counts.rows))
        return Last(self.epoch, self.last_seq, made, own, rows, self._pictures)

    def _write_last(self) -> None:
        self._keeper.write_last(self._last())

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def deletion(self) -> Iterator[None]:
        """A transaction of deletions only, most of them without waiting for the disk.

        It survives the death of this process like any other. A power cut may undo the last few, and then what was
        delivered is delivered again; waiting for the disk each time cost a tenth of the speed of a drain.
        """
        self._deletions += 1
        is_synced = self._deletions % SYNC_EVERY == 0
        if not is_synced:
            self.db.execute("PRAGMA synchronous = NORMAL")
        try:
            with self.transaction():
                yield
        finally:
            if not is_synced and self._connection:
                self._connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it is on the medium after this, or nothing is."""
        db, before = self.db, (self.epoch, self.last_seq, self.waiting, self.counts, self.added, self.settled)
        self.counts = self.counts.copy()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            if not self._keeper.covers(self.epoch, self.last_seq):
                self._keeper.write_seal(self.epoch, self.last_seq)
            stamp = self._keeper.seal.stamp if self._keeper.seal else 0
            values = (self.waiting, stamp, json.dumps(self.counts.made))
            db.execute("UPDATE meta SET waiting = ?, seal = ?, made = ?", values)
            db.execute("COMMIT")
        except BaseException:
            self.epoch, self.last_seq, self.waiting, self.counts, self.added, self.settled = before
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.commits += 1
        self._write_last()

    def add(self, drafts: Iterable[Draft]) -> None:
        """Number and store these records. Inside a transaction."""
        rows = []
        for draft in drafts:
            self.last_seq += 1
            payload = self.form.encode(draft, self.epoch, self.last_seq)
            rows.append((self.last_seq, draft.lane, draft.kind.value, draft.source, zlib.crc32(payload), payload))
            self.counts.added(draft.kind.value, is_own=draft.source is None)
        self.db.executemany(
            "INSERT INTO record (seq, lane, kind, source, crc, payload) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        self.waiting += len(rows)
        self.added += len(rows)

    def settle(self, seqs: Iterable[int]) -> None:
        """These are delivered. Inside a transaction."""
        for first, last in ranges(sorted(seqs)):
            self.settle_span(first, last)

    def settle_span(self, first: int, last: int) -> None:
        """All from `first` to `last` are delivered. Inside a transaction."""
        query = "DELETE FROM record WHERE seq BETWEEN ? AND ? RETURNING kind, source IS NULL"
        gone = self.counts.gone(self.db.execute(query, (first, last)).fetchall())
        self.waiting -= gone
        self.settled += gone

    def withdraw(self, first: int, last: int) -> None:
        """These wait no more, and are not delivered: somebody keeps them. Inside a transaction."""
        self.waiting -= self.db.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, last)).rowcount

    # -- reading ------------------------------------------------------------------------------------------------------

    def record(self, seq: int) -> Waiting | None:
        """That one; None where it does not wait any more."""
        return next(iter(self._read("WHERE seq = ?", (seq,))), None)

    def live(self, after: int, limit: int) -> list[Waiting]:
        """The next records after `after` that came as they happened."""
        return self._read("INDEXED BY record_live WHERE lane = 0 AND seq > ? ORDER BY seq LIMIT ?", (after, limit))

    def backlog(self, after: int, live_from: int, limit: int) -> list[Waiting]:
        """The next records after `after` that nobody waits for: older than `live_from`, or from long ago."""
        return self._read("WHERE seq > ? AND (seq < ? OR lane = 1) ORDER BY seq LIMIT ?", (after, live_from, limit))

    def _read(self, rest: str, values: Sequence[int]) -> list[Waiting]:
        found = []
        for seq, kind, crc, payload in self.db.execute(f"SELECT seq, kind, crc, payload FROM record {rest}", values):
            if not isinstance(payload, bytes) or zlib.crc32(payload) != crc:
                raise DamagedRecord(f"record {seq} is not what was written")
            found.append(Waiting(seq, kind, payload))
        return found

    def used_bytes(self) -> int:
        (pages,), (free,), (size,) = (
            self.db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def give_back(self, pages: int = 500) -> None:
        """Return some room to the file system, where much is unused."""
        (free,) = self.db.execute("PRAGMA freelist_count").fetchone()
        if free > 4 * pages:
            self.db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()

    # -- how far the journal was read ---------------------------------------------------------------------------------

    def journal(self) -> str:
        """Which journal the positions belong to; empty before the first."""
        return str(self.db.execute("SELECT journal FROM meta").fetchone()[0])

    def positions(self) -> dict[str, int]:
        return dict(self.db.execute("SELECT name, row FROM position").fetchall())

    def mark(self) -> None:
        """Note beside the file up to where all was delivered. Raises OSError."""
        delivered = self.positions()
        delivered |= {table: row - 1 for table, row in self._first_undelivered().items()}
        for query, table in (
            ("SELECT min(first) FROM behind", "part"),
            ("SELECT min(row) FROM open_row WHERE name = 'part'", "part"),
            ("SELECT min(row) FROM open_row WHERE name = 'run'", "run"),
        ):
            (first,) = self.db.execute(query).fetchone()
            if first is not None:
                delivered[table] = min(delivered.get(table, 0), first - 1)
        write_mark(self.path, Mark(self.epoch, self.journal(), delivered))
        (self._pictures,) = self.db.execute("SELECT count(*) FROM upload").fetchone()
        self._write_last()

    def _first_undelivered(self) -> dict[str, int]:
        tables: dict[str, int] = {}
        for place in ("record", "aside"):
            query = f"SELECT kind, min(source) FROM (SELECT kind, source FROM {place} ORDER BY seq LIMIT ?)"
            for kind, source in self.db.execute(f"{query} WHERE source IS NOT NULL GROUP BY kind", (MARK_ROWS,)):
                table = Kind(kind).table
                tables[table] = min(source, tables.get(table, source))
        return tables


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
