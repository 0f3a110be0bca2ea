"""The outbox: records that wait for the cloud, in a SQLite file of their own, used by one thread.

Why a copy of the journal and not the journal itself: a part's row changes three times (trigger, decision, outcome)
and a record that was sent must never change, so each statement about a part becomes a record with a number of its own.
Writing those numbers into the journal would make its writer wait for us, and `run` must pay nothing for the uplink.
So the journal stays the source of truth: `feeder` tails it read-only and commits the new records and its own position
in one transaction here. What finds no room here is not lost, it stays in the journal; what was delivered is deleted
here, and the journal keeps its own time. A group of 500 rows costs one commit, about 15 us a record.

(epoch, seq) names a record for ever. A file that was lost or damaged cannot know which numbers were seen outside, so
a new file draws a new epoch, says so in its first record, and reads the journal again from the last mark.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.core.errors import StorageError
from edge_runtime.recording.trouble import is_damage, set_aside
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox_mark import Mark, read_mark, write_mark
from edge_runtime.sync.outbox_schema import NewerOutbox, open_outbox
from edge_runtime.sync.records import Draft, Kind, RecordFormat, epoch_record

log = logging.getLogger(__name__)

OUTBOX = "outbox.db"
SYNC_EVERY = 4  # deletions that a power cut may undo, at most
LOCK_ATTEMPTS, LOCK_PAUSE_S = 5, 0.02  # `spool status` holds the lock for a moment when it looks whether a sync runs
MARK_ROWS = 10_000  # records looked through for the first ones that were not delivered


class DamagedRecord(sqlite3.DatabaseError):
    """A record is not what was written: the file cannot be trusted."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True, slots=True)
class Waiting:
    """One record that waits."""

    seq: int
    kind: str
    payload: bytes


class Outbox:
    """Records in, records out, deleted when delivered. Every method may raise sqlite3.Error; nothing is half done."""

    def __init__(self, path: Path, form: RecordFormat, wall: WallClock) -> None:
        self.path = path
        self.form = form
        self._wall = wall
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._lock_fd: int | None = None
        self.epoch = ""
        self.last_seq = 0
        self.waiting = 0
        self.added = self.settled = self.commits = self._deletions = 0
        self.aside: list[str] = []  # files that were damaged and set aside
        self._why_new = ""

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
        connection = open_outbox(self.path, secrets.token_hex(8))
        try:
            meta = connection.execute("SELECT epoch, waiting FROM meta").fetchone()
            last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
            newest = connection.execute("SELECT max(seq) FROM record").fetchone()[0] or 0
            if meta is None or newest > (last[0] if last else 0):
                raise DamagedRecord("the outbox contradicts itself")
        except BaseException:
            connection.close()
            raise
        self._connection, self._file = connection, _identity(self.path)
        self.epoch, self.waiting = str(meta[0]), int(meta[1])
        self.last_seq = int(last[0]) if last else 0
        if self.last_seq == 0:
            self._tell_epoch()

    def _tell_epoch(self) -> None:
        """The first record of a file says what came before it, as far as anybody knows."""
        mark = read_mark(self.path)
        why = self._why_new or ("lost" if mark else "first")
        log.log(logging.INFO if why == "first" else logging.WARNING, "outbox.epoch epoch=%s why=%s", self.epoch, why)
        with self.transaction():
            self.add([epoch_record(self._wall, mark.epoch if mark else None, why, self.aside[-1:])])
        self._why_new = ""

    def close(self, *, unlock: bool = True) -> None:
        connection, self._connection = self._connection, None
        if connection:
            try:
                connection.close()
            except sqlite3.Error as err:
                log.warning("outbox.close error=%s", err)
        if unlock and self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def lock(self) -> None:
        """Two senders would give the same number to two records. The system frees the lock when we die.

        Raises StorageError when another process has it, OSError.
        """
        if self._lock_fd is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as err:
                if attempt + 1 == LOCK_ATTEMPTS:
                    os.close(descriptor)
                    raise StorageError(
                        f"{self.path} is in use: another edge-runtime sync runs; stop that one first"
                    ) from err
                time.sleep(LOCK_PAUSE_S)
        self._lock_fd = descriptor

    def is_gone(self) -> bool:
        """Somebody deleted or replaced the file: SQLite would write on happily into nowhere."""
        return self._connection is not None and _identity(self.path) != self._file

    def set_aside_if_damaged(self, error: Exception) -> bool:
        """Whether the file was no good and now lies under another name. Raises OSError when it cannot be moved."""
        if isinstance(error, NewerOutbox):
            what = "newer"
        elif is_damage(error):
            what = "damaged"
        else:
            return False
        self.close(unlock=False)
        name = set_aside(self.path, what, self._wall.now())
        log.error("outbox.set_aside file=%s why=%s", name, error)
        self.aside.append(name)
        self._why_new = what
        return True

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
        db, before = self.db, (self.last_seq, self.waiting, self.added, self.settled)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("UPDATE meta SET waiting = ?", (self.waiting,))
            db.execute("COMMIT")
        except BaseException:
            self.last_seq, self.waiting, self.added, self.settled = before
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.commits += 1

    def add(self, drafts: Iterable[Draft]) -> None:
        """Number and store these records. Inside a transaction."""
        rows = []
        for draft in drafts:
            self.last_seq += 1
            payload = self.form.encode(draft, self.epoch, self.last_seq)
            rows.append((self.last_seq, draft.lane, draft.kind.value, draft.source, zlib.crc32(payload), payload))
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
        gone = self.db.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, last)).rowcount
        self.waiting -= gone
        self.settled += gone

    # -- reading ------------------------------------------------------------------------------------------------------

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

    def _first_undelivered(self) -> dict[str, int]:
        tables: dict[str, int] = {}
        query = "SELECT kind, min(source) FROM (SELECT kind, source FROM record ORDER BY seq LIMIT ?)"
        for kind, source in self.db.execute(f"{query} WHERE source IS NOT NULL GROUP BY kind", (MARK_ROWS,)):
            table = Kind(kind).table
            tables[table] = min(source, tables.get(table, source))
        return tables


def ranges(ordered: Iterable[int]) -> list[tuple[int, int]]:
    """[1, 2, 3, 7, 8] -> [(1, 3), (7, 8)]"""
    found: list[tuple[int, int]] = []
    for number in ordered:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino
