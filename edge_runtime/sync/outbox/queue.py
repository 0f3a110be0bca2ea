"""The queue of the outbox: records in, each with a number for ever, and out again when they are delivered.

On an open file, by one thread; how that file is opened and kept is `file.py`'s. A group of 500 rows costs one commit,
about 15 us a record.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edge_runtime.recording.pruned import ranges
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.counts import Counts
from edge_runtime.sync.outbox.keeper import Keeper
from edge_runtime.sync.outbox.schema import DamagedRecord
from edge_runtime.sync.outbox.seal import Last
from edge_runtime.sync.records.format import Draft, RecordFormat

SYNC_EVERY = 4  # deletions that a power cut may undo, at most


@dataclass(frozen=True, slots=True)
class Waiting:
    """One record that waits."""

    seq: int
    kind: str
    payload: bytes


class Queue:
    """Every method may raise sqlite3.Error or OSError; nothing is half done. keeper: of the files that seal it."""

    def __init__(self, form: RecordFormat, wall: WallClock, keeper: Keeper) -> None:
        self.form = form
        self.wall = wall
        self._keeper = keeper
        self._connection: sqlite3.Connection | None = None
        self._pictures = 0  # that wait, as of the last mark
        self._deletions = 0
        self.epoch = ""
        self.last_seq = 0
        self.waiting = 0
        self.counts = Counts()
        self.added = self.settled = self.commits = 0

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def db(self) -> sqlite3.Connection:
        """For the files of this folder alone."""
        if self._connection is None:
            raise sqlite3.ProgrammingError("the outbox is not open")
        return self._connection

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

    # -- what is left when the file is lost ---------------------------------------------------------------------------

    def _last(self) -> Last:
        counts = self.counts
        made, own, rows = (dict(+counter) for counter in (counts.made, counts.own, counts.rows))
        return Last(self.epoch, self.last_seq, made, own, rows, self._pictures)

    def _write_last(self) -> None:
        self._keeper.write_last(self._last())
