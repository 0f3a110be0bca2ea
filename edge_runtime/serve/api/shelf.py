"""The models that are loaded: within a memory limit, the one that was idle longest goes first.

All of it is the event loop's; only loading (one at a time, on a thread of its own) and the models' own work (each on
its seat) are not. What a model takes is the growth of this process while it was loaded, and no less than its file; a
child's own memory counts in full.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.core.errors import EdgeError
from edge_runtime.flow.components import Health, State
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.api.catalog import Known
from edge_runtime.serve.api.seat import Seat
from edge_runtime.serve.api.worker import Worker

log = logging.getLogger(__name__)


class Model(Protocol):
    """What stands on the shelf."""

    budget_s: float  # for one invoke, or one prediction

    def close(self) -> None: ...


M = TypeVar("M", bound=Model)
T = TypeVar("T")

LOOK_EVERY_S = 0.2  # how often hung seats are looked for
MOST_HUNG = 5  # abandoned threads that this process carries; past it the watchdog starts it anew
LOAD_S = 60.0  # for a load on a busy box, on top of the time of an invoke; a child is given up before
READ_S = 60.0  # for a question of the largest size, which takes a few seconds
MB = 1 << 20


@dataclass(slots=True)
class _Placed(Generic[M]):
    """One loaded model. identity: of the file it was loaded from."""

    known: Known
    identity: object
    model: M
    seat: Seat
    bytes: int
    used_ns: int


@dataclass(slots=True)
class Counted:
    """What was asked of one model, by label; for `stats`."""

    asked: int = 0
    invokes: int = 0
    failed: int = 0
    last_ms: int = 0
    invoke_ns: int = 0
    took_ns: int = 0


@dataclass(slots=True)
class _Failure:
    identity: object
    why: str


@dataclass(slots=True)
class Shelf:
    """A component without a thread to start. most_bytes: for all models together. load_s: for one load."""

    most_bytes: int
    load_s: float = LOAD_S
    clock: Clock = monotonic_ns
    name: str = "models"
    loads: int = 0
    dropped: int = 0
    hung: int = 0
    counts: dict[str, Counted] = field(default_factory=dict)
    _placed: dict[tuple[str, str], _Placed[Any]] = field(default_factory=dict)
    _loading: dict[tuple[str, str], tuple[object, asyncio.Task[Any]]] = field(default_factory=dict)
    _failed: dict[tuple[str, str], _Failure] = field(default_factory=dict)
    _loader: Worker | None = None
    _reader: Worker | None = None
    _watch: asyncio.Task[None] | None = None

    # -- a component --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._loader = Worker("loader", self.load_s, self._count_hung, self.clock)
        self._reader = Worker("reader", READ_S, self._count_hung, self.clock)

    def stop(self) -> None:
        for placed in [*self._placed.values()]:
            self._drop(placed)
        if self._loader and self._reader:
            self._loader.close()
            self._reader.close()
            self._loader = self._reader = None

    def health(self) -> Health:
        if self._loader is None:
            return Health(State.STOPPED)
        if self.hung > MOST_HUNG:  # the watchdog hears of no progress, and the daemon is started anew
            return Health(State.FAILED, f"{self.hung} models or loads hung", 0)
        if self.hung:
            return Health(State.DEGRADED, f"{self.hung} models or loads hung and were given up")
        return Health(State.OK, f"{len(self._placed)} loaded")

    def report(self) -> Mapping[str, Any]:
        placed = list(self._placed.values())
        return {
            "loaded": sorted({one.known.label for one in placed}),
            "mb": round(sum(one.bytes for one in placed) / MB, 1),
            "loads": self.loads,
            "dropped": self.dropped,
            "hung": self.hung,
            "asked": sum(count.asked for count in self.counts.values()),
        }

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, known: Known, how: str, load: Callable[[], M], work: Callable[[M, Seat], T]) -> T:
        """What the work gives, on the seat of this model; loaded first where it is not. how: `tensors` or `predict`.

        Raises Refusal, or what the work raises.
        """
        placed = await self._get(known, how, load)
        while placed.seat.is_closed:  # another one needed its room just now
            placed = await self._get(known, how, load)
        placed.used_ns = self.clock()
        return await placed.seat.do(lambda: work(placed.model, placed.seat))

    async def read(self, work: Callable[[], T]) -> T:
        """Something that takes much memory for a moment, one at a time, off the event loop."""
        assert self._reader is not None
        return await self._reader.do("the question could not be read", work)

    async def get(self, known: Known, how: str, load: Callable[[], M]) -> M:
        """The loaded model, to look at."""
        return (await self._get(known, how, load)).model

    def failure(self, known: Known) -> str:
        """Why it could not be loaded; empty where it could, or nobody tried since it was put there."""
        for (label, _), failure in self._failed.items():
            if label == known.label and failure.identity == known.identity():
                return failure.why
        return ""

    def forget(self, known: Known) -> None:
        """Take it off the shelf; who is being answered is answered."""
        for placed in [*self._placed.values()]:
            if placed.known == known:
                self._drop(placed)

    async def _get(self, known: Known, how: str, load: Callable[[], M]) -> _Placed[M]:
        key = (known.label, how)
        identity = known.identity()
        placed = self._placed.get(key)
        if placed and placed.identity == identity:
            return placed
        if placed:  # installed anew under the same name and version
            self._drop(placed)
        what, task = self._loading.get(key, (None, None))
        if task is None or what != identity:  # none, or one of what lay there before
            task = asyncio.create_task(self._load(key, known, identity, load))
            self._loading[key] = (identity, task)
            task.add_done_callback(lambda done: self._loaded(key, done))
        found: _Placed[M] = await asyncio.shield(task)
        return found

    def _loaded(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        if self._loading.get(key, (None, None))[1] is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()  # whoever waits gets it; when nobody waits any more it is in `_failed`

    async def _load(self, key: tuple[str, str], known: Known, identity: object, load: Callable[[], M]) -> _Placed[M]:
        self._watch_seats()
        least = known.size
        if 2 * least > self.most_bytes:
            raise Refusal(409, f"{known.label} has {least // MB} MB, serve.models_mb allows {self.most_bytes // MB}")
        self._make_room(2 * least)

        made: list[M] = []

        def measured() -> tuple[M, int]:
            before = memory_of(os.getpid())
            model = load()
            made.append(model)
            grown = memory_of(os.getpid()) - before + memory_of(getattr(model, "pid", None))
            return model, max(grown, least)

        assert self._loader is not None
        try:
            model, size = await self._loader.do(f"{known.label} was not loaded", measured, _ending(made))
        except EdgeError as err:
            self._failed[key] = _Failure(identity, err.what or str(err))
            raise Refusal(409, f"{known.label} cannot be asked: {err}") from err
        except Refusal as err:  # of a model that is not served, or that hung: it is in the index, and tried when asked
            self._failed[key] = _Failure(identity, err.why)
            raise
        except (OSError, MemoryError) as err:
            raise Refusal(503, f"{known.label} cannot be loaded now: {err or 'no memory'}") from err
        self._failed.pop(key, None)
        self.loads += 1
        placed = _Placed(known, identity, model, Seat(known.label, self.clock), size, self.clock())
        if before := self._placed.get(key):
            self._drop(before)
        self._placed[key] = placed
        self._make_room(0, keep=placed)
        log.info("model.loaded %s %s mb=%.1f", known.label, key[1], size / MB)
        return placed

    # -- room ---------------------------------------------------------------------------------------------------------

    def _make_room(self, more: int, keep: _Placed[Any] | None = None) -> None:
        """Drop the idlest until `more` fits. Who is being asked stays, and the limit is passed for so long."""
        idle = sorted(
            (one for one in self._placed.values() if one is not keep and one.seat.is_idle), key=lambda one: one.used_ns
        )
        while idle and sum(one.bytes for one in self._placed.values()) + more > self.most_bytes:
            self._drop(idle.pop(0))
            self.dropped += 1

    def _drop(self, placed: _Placed[Any]) -> None:
        self._take_off(placed)
        placed.seat.close(_ending([placed.model]))
        log.info("model.dropped %s", placed.known.label)

    def _take_off(self, placed: _Placed[Any]) -> None:
        for key in [key for key, one in self._placed.items() if one is placed]:
            del self._placed[key]

    # -- hung ones ----------------------------------------------------------------------------------------------------

    def _watch_seats(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_for_hung())

    async def _look_for_hung(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for placed in [*self._placed.values()]:
                if placed.seat.busy_s() > placed.model.budget_s:
                    self.give_up(placed)

    def _count_hung(self) -> None:
        self.hung += 1

    def give_up(self, placed: _Placed[Any]) -> None:
        self._count_hung()
        self._take_off(placed)
        why = f"{placed.known.label} gave no answer within {placed.model.budget_s:g} s and was given up; ask again"
        log.error("model.hung %s", why)
        placed.seat.abandon(why, _ending([placed.model]))
        kill(getattr(placed.model, "pid", None))


def _ending(models: list[Any]) -> Callable[[], None]:
    """For the thread of a seat: close them and give their memory back."""

    def end() -> None:
        while models:
            models.pop().close()
        give_memory_back()

    return end


def kill(pid: int | None) -> None:
    """A child of a seat that was given up, at once: its own thread buries it, so that the number is still its own."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def memory_of(pid: int | None) -> int:
    """Resident bytes of a process; 0 where it is not there."""
    if pid is None:
        return 0
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def give_memory_back() -> None:
    """What was freed to the system: glibc keeps it for itself otherwise, and the limit would be one in name."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        pass
