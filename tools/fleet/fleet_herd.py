"""Hundreds of boxes turned by one thread, and what goes wrong with them, planned by a seed before it begins."""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import random
import select
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fleet_boxes import TURN_NS, Plan, SimBox, Tally

from edge_runtime.core.clock import MS, SECOND

log = logging.getLogger(__name__)

RESTART_S = (0.5, 4.0)  # how long a crashed box is away
JUMPS_S = (-90_000.0, -3600.0, -30.0, 30.0, 3600.0, 90_000.0)
LEAST_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Faults:
    """So many of each, over all boxes, at random moments; `silent` boxes stop at `silent_from` of the time."""

    restarts: int = 0
    cuts: int = 0
    jumps: int = 0
    silent: int = 0
    silent_from: float = 0.35


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    at_s: float
    box: int
    what: str  # restart | cut | jump | silent
    amount: float = 0.0


def plan_faults(faults: Faults, boxes: int, seconds: float, seed: int) -> list[Fault]:
    """In the order of time. Silent boxes are the first ones; half of them crash, half merely say nothing more."""
    rng = random.Random(seed)
    found = [Fault(faults.silent_from * seconds, n, "silent", n % 2) for n in range(faults.silent)]
    others = range(min(faults.silent, boxes - 1), boxes)
    for what, count in (("restart", faults.restarts), ("cut", faults.cuts), ("jump", faults.jumps)):
        for _ in range(count):
            amount = rng.choice(JUMPS_S) if what == "jump" else rng.uniform(*RESTART_S)
            found.append(Fault(rng.uniform(0.05, 0.9) * seconds, rng.choice(others), what, amount))
    return sorted(found)


class Herd:
    """The boxes `numbers`, for `seconds`, then until all they made is safe, at most `drain_s`."""

    def __init__(self, plan: Plan, numbers: Sequence[int], faults: Sequence[Fault], ledger: Path) -> None:
        self._plan = plan
        self._faults = [fault for fault in faults if fault.box in set(numbers)]
        self._file: TextIO = ledger.open("a")
        self.tally = Tally()
        self._boxes = {n: SimBox(plan, n, self._file.writelines, self.tally) for n in numbers}
        self._silent: dict[int, float] = {}  # box -> wall time at which it fell silent
        self._asleep: set[int] = set()  # those that still are
        self._back: list[tuple[int, int]] = []  # when a crashed box is powered again
        self._due: list[tuple[int, int]] = []  # when a box is turned at the latest
        self._poll = select.epoll()
        self._watched: dict[int, int] = {}  # descriptor -> box
        self._sockets: dict[int, socket.socket] = {}  # box -> what is polled for it

    def run(self, seconds: float, drain_s: float, stopping: Callable[[], bool]) -> None:
        begun = time.monotonic_ns()
        for number, box in self._boxes.items():
            box.open()
            heapq.heappush(self._due, (begun, number))
        end = begun + round(seconds * SECOND)
        while time.monotonic_ns() < end and not stopping():
            self._inflict((time.monotonic_ns() - begun) / SECOND)
            self._turn()
        self._finish_making()
        limit = time.monotonic_ns() + round(drain_s * SECOND)
        while any(box.waiting or not box.is_open for box in self._boxes.values()):
            if time.monotonic_ns() > limit or stopping():
                break
            self._inflict(0.0)
            self._turn()
        self.tally.counts["left"] = sum(box.waiting for box in self._boxes.values())
        for box in self._boxes.values():
            box.close()
        self._file.close()
        self._poll.close()

    def report(self) -> dict[str, Any]:
        return {
            "counts": dict(self.tally.counts),
            "puback_ms": list(self.tally.puback_ms),
            "safe_ms": list(self.tally.safe_ms),
            "silent": {self._boxes[number].name: at for number, at in self._silent.items()},
        }

    # -- turning ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Those whose socket has something, and those whose time has come."""
        now = time.monotonic_ns()
        wait_s = max(LEAST_POLL_S, min((self._due[0][0] - now) / SECOND, 0.1)) if self._due else 0.1
        ready = [self._watched[fd] for fd, _ in self._poll.poll(wait_s)]
        for number in ready:
            self._turn_one(number)
        now = time.monotonic_ns()
        while self._due and self._due[0][0] <= now:
            _, number = heapq.heappop(self._due)
            self._turn_one(number)
            heapq.heappush(self._due, (now + self._pause_ns(number, now), number))

    def _pause_ns(self, number: int, now: int) -> int:
        box = self._boxes[number]
        if not box.is_making or not box.is_open:
            return TURN_NS
        return max(MS, min(TURN_NS, box.next_make_ns - now))

    def _turn_one(self, number: int) -> None:
        box = self._boxes[number]
        if number in self._asleep:
            return
        try:
            box.turn()
        except (sqlite3.Error, OSError) as err:
            self.tally.counts["errors"] += 1
            log.warning("herd.box box=%s error=%s", box.name, err)
        self._watch(number, box.socket)

    def _watch(self, number: int, sock: socket.socket | None) -> None:
        """A closed socket has left the poll by itself, and its number may belong to another one already."""
        before = self._sockets.pop(number, None)
        if sock is None or sock.fileno() < 0:
            return
        self._sockets[number] = sock
        if sock is not before:
            self._watched[sock.fileno()] = number
            with contextlib.suppress(FileExistsError):
                self._poll.register(sock.fileno(), select.EPOLLIN)

    # -- faults -------------------------------------------------------------------------------------------------------

    def _inflict(self, at_s: float) -> None:
        while self._faults and self._faults[0].at_s <= at_s:
            fault = self._faults.pop(0)
            self.tally.counts[fault.what] += 1
            self._inflict_one(fault, self._boxes[fault.box])
        now = time.monotonic_ns()
        while self._back and self._back[0][0] <= now:
            _, number = heapq.heappop(self._back)
            self._boxes[number].open()

    def _inflict_one(self, fault: Fault, box: SimBox) -> None:
        if fault.what == "cut":
            box.cut()
        elif fault.what == "jump":
            box.jump(fault.amount)
        elif fault.what == "restart" and box.is_open:
            box.crash()
            heapq.heappush(self._back, (time.monotonic_ns() + round(fault.amount * SECOND), fault.box))
        elif fault.what == "silent":
            self._silent[fault.box] = time.time()
            self._asleep.add(fault.box)
            self._stop_watching(box)
            if fault.amount:
                box.crash()
            log.warning("herd.silent box=%s crashed=%s", box.name, bool(fault.amount))

    def _stop_watching(self, box: SimBox) -> None:
        """Its socket stays open and nobody reads it: the far side learns nothing."""
        sock = self._sockets.pop(box.number, None)
        if sock is not None and sock.fileno() >= 0:
            self._poll.unregister(sock.fileno())

    def _finish_making(self) -> None:
        """No more parts; who is away comes back and delivers."""
        for number in self._asleep:
            box = self._boxes[number]
            box.crash()
            box.open()
        self._asleep.clear()
        self._faults.clear()
        for box in self._boxes.values():
            box.is_making = False


def write_report(herd: Herd, out: TextIO) -> None:
    json.dump(herd.report(), out)
    out.write("\n")
    out.flush()
