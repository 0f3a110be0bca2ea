"""The `metrics` record: how box and uplink are, every so often."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.outbox.quota import Quota
from edge_runtime.sync.records.format import Kind, own_record

log = logging.getLogger(__name__)

Snapshot = Callable[[], Mapping[str, Any] | None]


class BoxMetrics:
    """snapshot: of the box, takes a second at most; None or an error is a record without it. report: of the uplink."""

    def __init__(
        self, outbox: Queue, quota: Quota, clock: Clock, every_s: float, snapshot: Snapshot | None, report: Snapshot
    ) -> None:
        self._outbox = outbox
        self._quota = quota
        self._clock = clock
        self._every_ns = round(every_s * SECOND)
        self._snapshot, self._report = snapshot, report
        self._next_ns = 0

    def turn(self) -> None:
        """Add one when it is time. Raises sqlite3.Error, OSError."""
        now = self._clock()
        if not self._every_ns or now < self._next_ns:
            return
        self._next_ns = now + self._every_ns
        if self._quota.refuse_metrics():
            return
        data = {"box": self._look(), "sync": self._report()}
        with self._outbox.transaction():
            self._outbox.add([own_record(Kind.METRICS, data, self._outbox.wall)])

    def _look(self) -> Mapping[str, Any] | None:
        try:
            return self._snapshot() if self._snapshot else None
        except Exception as err:
            log.warning("sync.snapshot error=%s", err)
            return None
