"""One thread for one interpreter: jobs go in from the event loop, answers come back to it.

Native code can hang, and nothing stops it: then the seat is abandoned, thread and interpreter with it, and whoever
waits for it is told. The time of a job is counted from `tick`, which a job of several invokes calls before each.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.process.step_back import run_last
from edge_runtime.serve.access.refusal import Refusal

T = TypeVar("T")

MOST_WAITING = 64  # for one model; a client that comes then had better ask again later


class _Job:
    __slots__ = ("future", "loop", "work")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.loop = future.get_loop()

    def tell(self, result: Any, error: BaseException | None) -> None:
        """From the seat's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon ended meanwhile
            self.loop.call_soon_threadsafe(self.settle, result, error)

    def settle(self, result: Any, error: BaseException | None) -> None:
        """On the loop's thread."""
        if self.future.done():  # abandoned, or the client is gone
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Seat:
    def __init__(self, name: str, clock: Clock = monotonic_ns) -> None:
        self.name = name
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._since_ns: int | None = None
        self._waiting: set[_Job] = set()  # on the loop's thread alone
        self._is_abandoned = False
        self.is_closed = False  # a job that comes now is never done
        self._last: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    async def do(self, work: Callable[[], T]) -> T:
        """What the work gives, done on the seat's thread. Raises what it raises; Refusal (503) where too many wait, or
        the seat was abandoned meanwhile."""
        if len(self._waiting) >= MOST_WAITING:
            raise Refusal(503, f"{MOST_WAITING} requests wait for {self.name} already", {"Retry-After": "1"})
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(work, future)
        self._waiting.add(job)
        self._jobs.put(job)
        try:
            return await future
        finally:
            self._waiting.discard(job)

    def tick(self) -> None:
        """From within a job: what follows has its own time."""
        self._since_ns = self._clock()

    def busy_s(self) -> float:
        """How long the job in work, or its last part, takes already."""
        since_ns = self._since_ns
        return 0.0 if since_ns is None else (self._clock() - since_ns) / 1e9

    def close(self, last: Callable[[], None] | None = None) -> None:
        """The thread ends after what it has. last: what it does then."""
        self._last, self.is_closed = last, True
        self._jobs.put(None)

    def abandon(self, why: str, last: Callable[[], None] | None = None) -> None:
        """On the loop's thread: it hangs. All who wait are told. last: what its thread does should it come back."""
        self._is_abandoned = True
        for job in list(self._waiting):
            job.settle(None, Refusal(503, why, {"Retry-After": "1"}))
        self.close(last)

    def _run(self) -> None:
        run_last()
        while (job := self._jobs.get()) is not None:
            if self._is_abandoned or job.future.cancelled():
                continue
            self.tick()
            result, error = None, None
            try:
                result = job.work()
            except BaseException as err:
                error = err
            self._since_ns = None
            job.tell(result, error)
            del job, result, error  # a thread that waits holds nobody's arrays
        last, self._last = self._last, None
        if last:
            last()
