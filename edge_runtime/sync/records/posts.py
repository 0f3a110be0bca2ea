"""Records that no row of the journal stands for, handed over by any thread, on their way into the outbox."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from dataclasses import dataclass, field

from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.records.format import Draft, drop_record

POSTED_MOST = 2000  # records that wait in memory for the outbox, while the disk is full


@dataclass(slots=True)
class Posted:
    draft: Draft
    done: threading.Event = field(default_factory=threading.Event)  # it is on the disk


class Posts:
    """put: from any thread; take, stored: on the thread that owns the outbox."""

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall
        self._queue: queue.SimpleQueue[Posted] = queue.SimpleQueue()
        self._held: list[Posted] = []
        self._refused: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def put(self, draft: Draft) -> Posted | None:
        """From any thread. None: too many wait, it is refused and counted."""
        if self._queue.qsize() >= POSTED_MOST:
            self._refused[draft.kind.value] += 1
            self.dropped[draft.kind.value] += 1
            return None
        posted = Posted(draft)
        self._queue.put(posted)
        return posted

    def take(self) -> list[Draft]:
        """All that are to be stored now; they stay held until `stored`, so that a failed commit loses none."""
        while len(self._held) < POSTED_MOST and not self._queue.empty():
            self._held.append(self._queue.get())
        if self._refused and self._queue.empty():
            refused, self._refused = self._refused, Counter()
            for what, count in refused.items():
                self._held.append(Posted(drop_record(self._wall, what, "backlog_full", count)))
        return [posted.draft for posted in self._held]

    def stored(self) -> None:
        held, self._held = self._held, []
        for posted in held:
            posted.done.set()
