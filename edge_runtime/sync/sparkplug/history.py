"""What changed while nobody was listening, for as long as it fits: told after the next birth, marked historical.

This is for the trend on the operator's screen. The records that must not be lost go through the outbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.sparkplug.actions import Moment
from edge_runtime.sync.sparkplug.payload import Metric

EVERY_NS = 60 * SECOND  # one look a minute while offline
MOST = 10_000  # values; with 40 metrics that all change, four hours of them, 3 MB
PER_MESSAGE = 200  # about 5 kB a message


class History:
    """A bounded queue of values with their times; the oldest give way and are counted."""

    def __init__(self) -> None:
        self.dropped = 0
        self._kept: deque[tuple[str | None, Metric]] = deque(maxlen=MOST)
        self._due_ns: int | None = None  # before the first birth: what it will tell itself is not kept

    def add(self, changes: Mapping[str | None, list[Metric]], now: Moment) -> None:
        """Keep these changes, unless the last look was less than a minute ago."""
        if self._due_ns is None:
            self._due_ns = now.ns + EVERY_NS
        if now.ns < self._due_ns or not any(changes.values()):
            return
        self._due_ns = now.ns + EVERY_NS
        for device, metrics in changes.items():
            for metric in metrics:
                self.dropped += len(self._kept) == MOST
                self._kept.append((device, replace(metric, is_historical=True)))

    def take(self) -> Iterator[tuple[str | None, list[Metric]]]:
        """All that was kept, device by device, in messages of bounded size; the queue is empty afterwards."""
        kept, self._kept = sorted(self._kept, key=lambda entry: entry[0] or ""), deque(maxlen=MOST)
        self._due_ns = 0
        for device, entries in groupby(kept, key=lambda entry: entry[0]):
            metrics = [metric for _, metric in entries]
            for start in range(0, len(metrics), PER_MESSAGE):
                yield device, metrics[start : start + PER_MESSAGE]
