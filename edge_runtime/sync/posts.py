"""What other threads want of the sync thread: records of their own, and answers to questions."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.records.records import Draft, drop_record

POSTED_MOST = 2000  # records that wait in memory for the outbox, while the disk is full


@dataclass(slots=True)
class Posted:
    draft: Draft
    done: threading.Event = field(default_factory=threading.Event)  # it is on the disk


class Posts:
    """Records that are no rows of the journal, on their way into the outbox."""

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


class Questions:
    """Work that only the sync thread may do, for somebody who waits for the answer."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()

    def ask(self, question: Callable[[], Any], timeout_s: float) -> Any:
        """From any thread. Raises what the answer raised, StorageError when it does not come in time."""
        future: Future[Any] = Future()
        self._asked.put((question, future))
        self._wake()
        try:
            return future.result(timeout_s)
        except FutureTimeout as err:
            future.cancel()
            raise StorageError("sync is busy or stopped: try again") from err

    def answer(self) -> None:
        """On the sync thread."""
        while not self._asked.empty():
            question, future = self._asked.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(question())
            except Exception as err:
                future.set_exception(err if isinstance(err, EdgeError) else StorageError(str(err)))
