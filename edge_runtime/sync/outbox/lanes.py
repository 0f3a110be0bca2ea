"""Which record goes next: what happens now before what waits since yesterday.

Pure but for the two queries that are handed in. Live is what came since the link is up; all else is backlog, oldest
first. Live records that had to wait `LIVE_FOR_NS` (the line makes more than the link carries) join the backlog, so
that the newest are never behind a queue. A record is handed out once until the link is renewed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.outbox.queue import Waiting

LIVE_ROWS, BACKLOG_ROWS = 64, 250  # read at a time; 250 usual records are 200 kB
LIVE_FOR_NS = 5 * SECOND

FetchLive = Callable[[int, int], list[Waiting]]  # after, limit
FetchBacklog = Callable[[int, int, int], list[Waiting]]  # after, live from, limit


class Lanes:
    """Hands out each waiting record once."""

    def __init__(self, live: FetchLive, backlog: FetchBacklog) -> None:
        self._fetch_live = live
        self._fetch_backlog = backlog
        self._live: deque[Waiting] = deque()
        self._backlog: deque[Waiting] = deque()
        self._live_from = 1
        self._live_after = 0
        self._backlog_after = 0
        self._newest = 0
        self._is_backlog_read = False
        self._behind_since_ns: int | None = None  # when the live lane was last empty
        self.taken: set[int] = set()  # handed out, and not yet deleted

    def restart(self, newest: int) -> None:
        """The link is new: all that is still stored, up to `newest`, is backlog and goes again."""
        self.taken.clear()
        self._newest = newest
        self.again()

    def again(self) -> None:
        """All that is stored and not handed out is backlog from now on, read from its beginning."""
        self._live.clear()
        self._backlog.clear()
        self._live_from, self._live_after = self._newest + 1, self._newest
        self._backlog_after = 0
        self._is_backlog_read = False
        self._behind_since_ns = None

    def added(self, newest: int) -> None:
        """Records up to this number are stored now."""
        if newest > self._newest:
            self._newest = newest
            self._is_backlog_read = False

    def settled(self, seqs: Iterable[int]) -> None:
        """These are deleted."""
        self.taken.difference_update(seqs)

    def dropped(self, seqs: set[int]) -> None:
        """These are given up, and must not be sent after it was said so."""
        self._live = deque(record for record in self._live if record.seq not in seqs)
        self._backlog = deque(record for record in self._backlog if record.seq not in seqs)

    def next(self, now_ns: int) -> Waiting | None:
        """The record to send now; None when none waits that was not handed out."""
        found = self._next_live(now_ns) or self._next_backlog()
        if found:
            self.taken.add(found.seq)
        return found

    def _next_live(self, now_ns: int) -> Waiting | None:
        while True:
            if not self._live and self._live_after < self._newest:
                self._live.extend(self._fetch_live(self._live_after, LIVE_ROWS))
                self._live_after = self._live[-1].seq if len(self._live) == LIVE_ROWS else self._newest
            if not self._live:
                self._behind_since_ns = None
                return None
            if self._is_behind(now_ns):
                self._age()
                continue
            record = self._live.popleft()
            if not self._live and self._live_after >= self._newest:
                self._behind_since_ns = None
            if record.seq not in self.taken:
                return record

    def _is_behind(self, now_ns: int) -> bool:
        if self._behind_since_ns is None:
            self._behind_since_ns = now_ns
        return now_ns - self._behind_since_ns > LIVE_FOR_NS

    def _age(self) -> None:
        """What waits in the live lane is backlog from now on."""
        backlog_after = min(self._backlog_after, self._live[0].seq - 1)
        if self._backlog:
            backlog_after = min(backlog_after, self._backlog[0].seq - 1)
        self.again()
        self._backlog_after = backlog_after

    def _next_backlog(self) -> Waiting | None:
        while True:
            if not self._backlog:
                if self._is_backlog_read:
                    return None
                rows = self._fetch_backlog(self._backlog_after, self._live_from, BACKLOG_ROWS)
                self._is_backlog_read = len(rows) < BACKLOG_ROWS
                self._backlog_after = self._newest if self._is_backlog_read else rows[-1].seq
                self._backlog.extend(rows)
                if not rows:
                    return None
            record = self._backlog.popleft()
            if record.seq not in self.taken:
                return record
