"""Records on their way to the disk: producers put and go, one writer takes them in groups.

Not `Bounded`: that wakes its reader for every item, and a reader woken thirty times a second only to find that its
group is not full yet takes the interpreter from the line. Here the first record of a group wakes the writer, and then
only a full group does. Measured 1-2 us a `put`.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_runtime.core.clock import Clock

T = TypeVar("T")


@dataclass(slots=True)
class Lost:
    """Records of one kind that found no room."""

    count: int
    first_ns: int
    last_ns: int

    def add(self, other: Lost) -> None:
        self.count += other.count
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)


class Inbox(Generic[T]):
    """Holds at most `capacity` records. What does not fit is counted by kind, never waited for."""

    def __init__(self, capacity: int, group: int, clock: Clock) -> None:
        self.capacity = capacity
        self.group = group
        self._clock = clock
        self._items: deque[T] = deque()
        self._lost: dict[str, Lost] = {}
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._full = threading.Event()
        self._hurry = False
        self.accepted = 0

    def put(self, item: T, kind: str) -> int:
        """Take the record and tell its number, from 1 on in the order they came; or count it as lost and return 0.
        Never waits."""
        with self._lock:
            waiting = len(self._items)
            if waiting >= self.capacity:
                now = self._clock()
                self._lost.setdefault(kind, Lost(0, now, now)).add(Lost(1, now, now))
                return 0
            self._items.append(item)
            self.accepted += 1
            number = self.accepted
        if waiting == 0:
            self._some.set()
        elif waiting + 1 == self.group:
            self._full.set()
        return number

    def take(self, wait_s: float, window_s: float) -> list[T]:
        """Up to `group` records: those that arrive within `window_s` of the first. Empty after `wait_s` of nothing."""
        if not self._some.wait(wait_s):
            return []
        if len(self._items) < self.group and not self._hurry:
            self._full.wait(window_s)
        with self._lock:
            batch = [self._items.popleft() for _ in range(min(self.group, len(self._items)))]
            if not self._items:
                self._some.clear()
                self._hurry = False
            if len(self._items) < self.group:
                self._full.clear()
        return batch

    def peek(self) -> list[T]:
        """What waits, the oldest first; it stays."""
        with self._lock:
            return list(self._items)

    def hurry(self) -> None:
        """Let the writer run now: somebody waits for the disk, or the end has come."""
        with self._lock:
            self._hurry = True
            self._some.set()
            self._full.set()

    def take_losses(self) -> dict[str, Lost]:
        """What was lost since the last call."""
        with self._lock:
            lost, self._lost = self._lost, {}
        return lost

    def __len__(self) -> int:
        return len(self._items)
