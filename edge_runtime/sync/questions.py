"""Work that only the thread of the outbox may do, for somebody on another thread who waits for the answer."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from edge_runtime.core.errors import EdgeError, StorageError


class Questions:
    """wake: called when there is one, so that it need not wait for the network."""

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
            raise StorageError("the uplink is busy or stopped: try again") from err

    def answer(self) -> None:
        """On the thread of the outbox."""
        while not self._asked.empty():
            question, future = self._asked.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(question())
            except Exception as err:
                future.set_exception(err if isinstance(err, EdgeError) else StorageError(str(err)))
