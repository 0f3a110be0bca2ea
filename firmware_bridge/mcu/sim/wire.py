"""One direction of a bad cable, in simulated time: damage, delay and reordering, drawn from a seed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random


@dataclass(frozen=True, slots=True)
class WireFaults:
    byte_errors: float = 0.0  # share of bytes with one bit flipped
    delay_ms: tuple[float, float] = (0.0, 0.0)  # of whole frames, each its own, so that they overtake each other
    is_bytewise: bool = False  # hand on one byte at a time


class Wire:
    """Bytes go in with the time at which they were sent, pieces come out when they have arrived."""

    def __init__(self, faults: WireFaults, seed: int) -> None:
        self.faults = faults
        self.is_plugged = True
        self.damaged = 0
        self._rng = Random(seed)
        self._begun = bytearray()  # a frame on its way to being complete; only with a delay
        self._late: list[tuple[float, int, bytes]] = []
        self._ready: deque[bytes] = deque()
        self._order = 0

    def send(self, data: bytes, now_us: float) -> None:
        if not self.is_plugged or not data:
            return
        if self.faults.byte_errors:
            data = self._damage(data)
        if self.faults.delay_ms[1] <= 0:
            self._ready.append(data)
            return
        *frames, rest = data.split(b"\0")
        for frame in frames:
            self._begun += frame + b"\0"
            self._order += 1
            due_us = now_us + 1000 * self._rng.uniform(*self.faults.delay_ms)
            heappush(self._late, (due_us, self._order, bytes(self._begun)))
            self._begun.clear()
        self._begun += rest

    def receive(self, now_us: float) -> list[bytes]:
        """Pieces that have arrived by now, each to be handed on by itself."""
        while self._late and self._late[0][0] <= now_us:
            self._ready.append(heappop(self._late)[2])
        pieces = list(self._ready)
        self._ready.clear()
        if self.faults.is_bytewise:
            return [bytes((byte,)) for piece in pieces for byte in piece]
        return pieces

    def unplug(self) -> None:
        """What is on its way is lost; nothing arrives until `plug`."""
        self.is_plugged = False
        self._begun.clear()
        self._late.clear()
        self._ready.clear()

    def plug(self) -> None:
        self.is_plugged = True

    def _damage(self, data: bytes) -> bytes:
        rng, share = self._rng, self.faults.byte_errors
        out = bytearray(data)
        for at in range(len(out)):
            if rng.random() < share:
                out[at] ^= 1 << rng.randrange(8)
                self.damaged += 1
        return bytes(out)
