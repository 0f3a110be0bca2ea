"""Records that lie beside the queue: not delivered, not waiting, not lost. A table of the outbox, used by its thread.

`refused`: the broker does not take them, while it takes others; they stay until a person sends them again
(`edge-runtime spool retry`) or the consumer names them. `unproven`: the broker acknowledged them, and nothing proves
that it keeps them; they go again by themselves as soon as something does. Together they take at most a share of the
quota. What has no room is given up and counted: unproven ones first, of which the broker has said at least that it has
them, in a `drop` record as soon as one would be kept; then refused ones, in a `drop` that names them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum

from edge_runtime.recording.pruned import ranges
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.records.format import LATER, drop_record

log = logging.getLogger(__name__)

SHARE = 0.25  # of the quota
SLICE = 2000  # rows in one transaction: about 1.5 MB


class Why(StrEnum):
    REFUSED = "refused"
    UNPROVEN = "unproven"


class Aside:
    """most_bytes: of payloads that lie here. Methods may raise sqlite3.Error; nothing is half done."""

    def __init__(self, outbox: Queue, most_bytes: int, wall: WallClock) -> None:
        self._outbox = outbox
        self._most_bytes = most_bytes
        self._wall = wall
        self._bytes = 0
        self.counts: dict[Why, int] = dict.fromkeys(Why, 0)
        self.gone: dict[Why, int] = dict.fromkeys(Why, 0)  # given up; unproven ones: and not told yet
        self._pending: list[tuple[Why, int, int]] = []  # rows and bytes of a transaction that is not committed yet

    def outbox_renewed(self) -> None:
        """The file was opened: read what lies there."""
        db = self._outbox.db
        self.counts, self.gone, self._bytes = dict.fromkeys(Why, 0), dict.fromkeys(Why, 0), 0
        for why, count, size in db.execute("SELECT why, count(*), sum(length(payload)) FROM aside GROUP BY why"):
            self._count(Why(why), count, size)
        self.gone.update((Why(why), count) for why, count in db.execute("SELECT why, count FROM aside_gone"))

    def begin(self) -> None:
        """A transaction of the caller begins, in which `put` or `settle_span` may come."""
        self._pending.clear()

    def put(self, seqs: Sequence[int], why: Why, reason: str) -> None:
        """Out of the queue, to here. Inside a transaction of the caller; `committed` must follow it."""
        now, outbox = self._wall.now(), self._outbox
        for first, last in ranges(sorted(seqs)):
            self._pending.append((why, *self._measure("record", "seq BETWEEN ? AND ?", (first, last))))
            outbox.db.execute(
                "INSERT OR REPLACE INTO aside (seq, kind, source, crc, payload, why, reason, at_utc_ns)"
                " SELECT seq, kind, source, crc, payload, ?, ?, ? FROM record WHERE seq BETWEEN ? AND ?",
                (why.value, reason, now, first, last),
            )
            outbox.withdraw(first, last)

    def committed(self) -> None:
        """What was put here is on the medium: count it, and keep to the room there is."""
        pending, self._pending = self._pending, []
        for why, count, size in pending:
            self._count(why, count, size)
        while self._bytes > self._most_bytes and self._let_go():
            pass

    def bring_back(self, why: Why) -> int:
        """Some of these into the queue again, the oldest first; how many, 0 when there are none left."""
        if not self.counts[why]:
            return 0
        outbox = self._outbox
        rows = outbox.db.execute("SELECT seq FROM aside WHERE why = ? ORDER BY seq LIMIT ?", (why.value, SLICE))
        seqs = [seq for (seq,) in rows]
        size = sum(self._measure("aside", "seq BETWEEN ? AND ?", span)[1] for span in ranges(seqs))
        with outbox.transaction():
            for first, last in ranges(seqs):
                outbox.db.execute(
                    "INSERT INTO record (seq, lane, kind, source, crc, payload)"
                    " SELECT seq, ?, kind, source, crc, payload FROM aside WHERE seq BETWEEN ? AND ?",
                    (LATER, first, last),
                )
                outbox.waiting += outbox.db.execute(
                    "DELETE FROM aside WHERE seq BETWEEN ? AND ?", (first, last)
                ).rowcount
        self._count(why, -len(seqs), -size)
        return len(seqs)

    def settle_span(self, first: int, last: int) -> None:
        """The consumer has these after all. Inside a transaction of the caller; `committed` must follow it."""
        for why in Why:
            span = (why.value, first, last)
            count, size = self._measure("aside", "why = ? AND seq BETWEEN ? AND ?", span)
            if count:
                self._forget(why, first, last)
                self._outbox.settled += count
                self._pending.append((why, -count, -size))

    def count_gone(self) -> None:
        """What is said from now on is kept: say how many unproven ones had to be given up. They may have arrived."""
        outbox, count = self._outbox, self.gone[Why.UNPROVEN]
        with outbox.transaction():
            outbox.db.execute("DELETE FROM aside_gone WHERE why = ?", (Why.UNPROVEN.value,))
            outbox.add([drop_record(self._wall, "records", "unproven", count)])
        self.gone[Why.UNPROVEN] = 0

    def report(self) -> Mapping[str, object]:
        return {
            "refused": self.counts[Why.REFUSED],
            "unproven": self.counts[Why.UNPROVEN],
            "gone": {why.value: count for why, count in self.gone.items() if count},
        }

    def _let_go(self) -> int:
        """Give up the oldest of those that matter least; how many."""
        why = next((why for why in (Why.UNPROVEN, Why.REFUSED) if self.counts[why]), None)
        if why is None:
            return 0
        outbox = self._outbox
        rows = outbox.db.execute(
            "SELECT seq, length(payload) FROM aside WHERE why = ? ORDER BY seq LIMIT ?", (why.value, SLICE)
        ).fetchall()
        seqs, freed = [], 0
        for seq, size in rows:
            if self._bytes - freed <= self._most_bytes:
                break
            seqs.append(seq)
            freed += size
        spans = ranges(seqs)
        with outbox.transaction():
            for first, last in spans:
                self._forget(why, first, last)
            outbox.db.execute(
                "INSERT INTO aside_gone (why, count) VALUES (?, ?)"
                " ON CONFLICT (why) DO UPDATE SET count = count + excluded.count",
                (why.value, len(seqs)),
            )
            if why is Why.REFUSED:
                outbox.add([drop_record(self._wall, "records", "refused", len(seqs), seqs=spans)])
        self._count(why, -len(seqs), -freed)
        self.gone[why] += len(seqs)
        log.warning("outbox.aside_gone why=%s count=%d", why.value, len(seqs))
        return len(seqs)

    def _forget(self, why: Why, first: int, last: int) -> None:
        """These are no longer here. Inside a transaction."""
        query = "DELETE FROM aside WHERE why = ? AND seq BETWEEN ? AND ? RETURNING kind, source IS NULL"
        self._outbox.counts.gone(self._outbox.db.execute(query, (why.value, first, last)).fetchall())

    def _measure(self, table: str, where: str, values: Sequence[object]) -> tuple[int, int]:
        query = f"SELECT count(*), coalesce(sum(length(payload)), 0) FROM {table} WHERE {where}"
        count, size = self._outbox.db.execute(query, values).fetchone()
        return int(count), int(size)

    def _count(self, why: Why, count: int, size: int) -> None:
        self.counts[why] += count
        self._bytes += size
