"""What goes when the outbox is full: pictures first, then metrics, never what was decided.

Each drop is counted and becomes a record itself, in the transaction that makes it. When only records of the journal
are left the outbox takes no further ones: they stay in the journal, where they are safe, and are read later.
"""

from __future__ import annotations

import logging
from collections import Counter

from edge_runtime.recording.pruned import ranges
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.pictures import PictureQueue
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.records.format import Kind, drop_record

log = logging.getLogger(__name__)

DROP_ROWS = 500  # in one transaction
OPEN_AGAIN = 0.95  # share of the quota under which records of the journal are taken again
NAMES_MOST = 50  # pictures named in one record


class Quota:
    """Keeps the outbox within `quota_bytes`. Used by the thread that owns it."""

    def __init__(self, outbox: Queue, quota_bytes: int, wall: WallClock) -> None:
        self._outbox = outbox
        self._pictures = PictureQueue(outbox)
        self._quota = quota_bytes
        self._wall = wall
        self.is_full = False  # records of the journal stay there
        self.dropped: Counter[str] = Counter()

    def check(self, taken: set[int]) -> set[int]:
        """Make room where it is needed; the numbers of the records that are gone. Never one that is `taken`."""
        used = self._outbox.used_bytes()
        if used <= self._quota:
            self.is_full = self.is_full and used > self._quota * OPEN_AGAIN
            return set()
        gone: set[int] = set()
        while self._outbox.used_bytes() > self._quota:
            if self._drop_pictures():
                continue
            some = self._drop_metrics(taken)
            if not some:
                break
            gone |= some
        if self._outbox.used_bytes() > self._quota and not self.is_full:
            self.is_full = True
            log.warning(
                "outbox.full quota_mb=%d: records stay in the journal until some are delivered", self._quota >> 20
            )
        return gone

    def _drop_pictures(self) -> int:
        found = self._pictures.oldest(DROP_ROWS)
        if not found:
            return 0
        names = [file for _, file in found[:NAMES_MOST]]
        with self._outbox.transaction():
            self._pictures.remove(number for number, _ in found)
            self._outbox.add([drop_record(self._wall, "evidence", "quota", len(found), names=names)])
        self._count("evidence", len(found))
        return len(found)

    def _drop_metrics(self, taken: set[int]) -> set[int]:
        rows = self._outbox.db.execute(
            "SELECT seq FROM record WHERE kind = ? ORDER BY seq LIMIT ?", (Kind.METRICS.value, DROP_ROWS + len(taken))
        ).fetchall()
        seqs = {seq for (seq,) in rows if seq not in taken}
        if not seqs:
            return set()
        spans = ranges(sorted(seqs))
        with self._outbox.transaction():
            for first, last in spans:
                self._outbox.settle_span(first, last)
            self._outbox.settled -= len(seqs)
            self._outbox.add([drop_record(self._wall, "metrics", "quota", len(seqs), seqs=spans)])
        self._count("metrics", len(seqs))
        return seqs

    def refuse_metrics(self) -> bool:
        """Whether a new metrics record must not come in."""
        if self.is_full:
            self._count("metrics", 1)
        return self.is_full

    def _count(self, what: str, count: int) -> None:
        self.dropped[what] += count
        log.warning("outbox.dropped what=%s count=%d quota_mb=%d", what, count, self._quota >> 20)
