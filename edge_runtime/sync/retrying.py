"""Retrying tasks: what a thread does over and over and may fail. Each is tried again by itself, and told meanwhile."""

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
class _Task:
    backoff: Backoff
    next_ns: int = 0
    trouble: str = ""


class RetryingTasks:
    """Named tasks of one thread. on_failure: told what a task raised, before it is tried again."""

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        clock: Clock,
        rng: random.Random,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._tasks = {name: _Task(Backoff(RETRY_MOST_S, RETRY_FIRST_S, rng)) for name in names}
        self._folder = folder
        self._clock = clock
        self._on_failure = on_failure

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Do it, unless it failed a moment ago. What disks and databases raise ends here, in `troubles`."""
        task = self._tasks[name]
        if self._clock() < task.next_ns:
            return
        try:
            work()
        except (sqlite3.Error, OSError, StorageError) as err:
            self.failed(name, err)
        else:
            if task.trouble:
                log.info("sync.well step=%s", name)
            task.trouble, task.next_ns = "", 0
            task.backoff.succeeded()

    def failed(self, name: str, error: Exception) -> None:
        task = self._tasks[name]
        task.next_ns = self._clock() + round(task.backoff.next_s() * SECOND)
        text = str(error) if isinstance(error, EdgeError) else explain(error, "the outbox", self._folder)
        if text != task.trouble:
            log.warning("sync.trouble step=%s %s", name, text)
        task.trouble = text
        self._on_failure(error)

    def at_once(self, name: str) -> None:
        """Do not wait before the next attempt."""
        self._tasks[name].next_ns = 0

    def next_ns(self, name: str) -> int:
        return self._tasks[name].next_ns

    def troubles(self) -> list[str]:
        return [task.trouble for task in self._tasks.values() if task.trouble]
