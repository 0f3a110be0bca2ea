"""Things that are done over and over and may fail: each is tried again by itself, and told while it does not work."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.recording.trouble import explain
from edge_runtime.sync.backoff import Backoff

log = logging.getLogger(__name__)

RETRY_MOST_S, RETRY_FIRST_S = 5.0, 0.1


@dataclass(slots=True)
class _Step:
    backoff: Backoff
    next_ns: int = 0
    trouble: str = ""


class Steps:
    """Named steps of one thread. on_failure: told what a step raised, before it is tried again."""

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        clock: Clock,
        rng: random.Random,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._steps = {name: _Step(Backoff(RETRY_MOST_S, RETRY_FIRST_S, rng)) for name in names}
        self._folder = folder
        self._clock = clock
        self._on_failure = on_failure

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Do it, unless it failed a moment ago. What disks and databases raise ends here, in `troubles`."""
        step = self._steps[name]
        if self._clock() < step.next_ns:
            return
        try:
            work()
        except (sqlite3.Error, OSError, StorageError) as err:
            self.failed(name, err)
        else:
            if step.trouble:
                log.info("sync.well step=%s", name)
            step.trouble, step.next_ns = "", 0
            step.backoff.succeeded()

    def failed(self, name: str, error: Exception) -> None:
        step = self._steps[name]
        step.next_ns = self._clock() + round(step.backoff.next_s() * SECOND)
        text = str(error) if isinstance(error, EdgeError) else explain(error, "the outbox", self._folder)
        if text != step.trouble:
            log.warning("sync.trouble step=%s %s", name, text)
        step.trouble = text
        self._on_failure(error)

    def at_once(self, name: str) -> None:
        """Do not wait before the next attempt."""
        self._steps[name].next_ns = 0

    def next_ns(self, name: str) -> int:
        return self._steps[name].next_ns

    def troubles(self) -> list[str]:
        return [step.trouble for step in self._steps.values() if step.trouble]
