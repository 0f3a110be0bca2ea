"""One thing at a time on a seat, within a time: one that hangs is given up, the next gets a fresh seat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from edge_runtime.core.clock import Clock
from edge_runtime.serve.api.seat import Seat

log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker:
    """most_s: for one piece of work. on_hung: told of each seat that was given up."""

    def __init__(self, name: str, most_s: float, on_hung: Callable[[], None], clock: Clock) -> None:
        self._name, self._most_s = name, most_s
        self._on_hung = on_hung
        self._clock = clock
        self._turn = asyncio.Lock()
        self._seat = Seat(name, clock)

    async def do(self, what: str, work: Callable[[], T], end: Callable[[], None] | None = None) -> T:
        """What the work gives. what: begins the sentence of one that hangs. end: done should that come back after all.

        Raises what the work raises; Refusal (503) when it hangs.
        """
        async with self._turn:
            job = asyncio.ensure_future(self._seat.do(work))
            try:
                done, _ = await asyncio.wait({job}, timeout=self._most_s)
            except asyncio.CancelledError:
                job.cancel()
                raise
            if not done:
                self._give_up(f"{what} within {self._most_s:g} s and was given up; ask again", end)
            return await job

    def close(self) -> None:
        self._seat.close()

    def _give_up(self, why: str, end: Callable[[], None] | None) -> None:
        log.error("%s.hung %s", self._name, why)
        self._seat.abandon(why, end)
        self._seat = Seat(self._name, self._clock)
        self._on_hung()
