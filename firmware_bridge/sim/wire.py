"""One direction of a bad cable, in simulated time: damage, loss, delay and reordering, drawn from a seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

from firmware_bridge.reject.frames import cobs_decode
from firmware_bridge.reject.messages import EventMsg


@dataclass(frozen=True, slots=True)
class WireFaults:
    """Shares are 0..1. Lost answers and late events are those of our own frames, on their way to the host."""

    byte_errors: float = 0.0  # share of bytes with one bit flipped
    delay_ms: tuple[float, float] = (0.0, 0.0)  # of whole frames, each its own, so that they overtake each other
    is_bytewise: bool = False  # hand on one byte at a time
    lose_answers: float = 0.0  # share of frames to the host that are no events
    late_events_ms: float = 0.0  # delay of those that are, triggers among them
    has_frames: bool = True  # our frames, which end with a zero; False: each piece is one, and no event

    @property
    def needs_frames(self) -> bool:
        return bool(self.delay_ms[1] > 0 or self.lose_answers or self.late_events_ms)


class Wire:
    """Bytes go in with the time at which they were sent, pieces come out when they have arrived."""

    def __init__(self, faults: WireFaults, seed: int) -> None:
        self.faults = faults
        self.is_plugged = True
        self.damaged = 0
        self._rng = Random(seed)
        self._begun = bytearray()  # a frame on its way to being complete; only where frames matter
        self._late: list[tuple[float, int, bytes]] = []
        self._ready: deque[bytes] = deque()
        self._order = 0

    def send(self, data: bytes, now_us: float) -> None:
        if not self.is_plugged or not data:
            return
        if not self.faults.needs_frames:
            self._ready.append(self._damage(data))
            return
        for frame in self._frames_of(data):
            delay_ms = self._delay_ms(frame)
            if delay_ms is not None:
                self._order += 1
                heappush(self._late, (now_us + 1000 * delay_ms, self._order, self._damage(frame)))

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

    def _frames_of(self, data: bytes) -> Iterator[bytes]:
        if not self.faults.has_frames:
            yield data
            return
        *frames, rest = data.split(b"\0")
        for frame in frames:
            yield bytes(self._begun) + frame + b"\0"
            self._begun.clear()
        self._begun += rest

    def _delay_ms(self, frame: bytes) -> float | None:
        """None: it is lost."""
        faults, delay_ms = self.faults, 0.0
        if faults.lose_answers or faults.late_events_ms:
            if faults.has_frames and (cobs_decode(frame[:-1]) or b"\0")[0] == EventMsg.KIND:
                delay_ms = faults.late_events_ms
            elif self._rng.random() < faults.lose_answers:
                return None
        return delay_ms + self._rng.uniform(*faults.delay_ms)

    def _damage(self, data: bytes) -> bytes:
        rng, share = self._rng, self.faults.byte_errors
        if not share:
            return data
        out = bytearray(data)
        for at in range(len(out)):
            if rng.random() < share:
                out[at] ^= 1 << rng.randrange(8)
                self.damaged += 1
        return bytes(out)
