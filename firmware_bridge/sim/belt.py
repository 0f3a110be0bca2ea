"""Bad days of a simulated belt and of what watches it. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[float, float]  # seconds after the belt began to move: from, until


@dataclass(frozen=True, slots=True)
class BadBelt:
    """Faults to live through. Counts of a stop are those that the belt would have moved meanwhile."""

    bounce: float = 0.0  # share of parts whose eye breaks several times
    stumble_every: int = 0  # counts from one stumble to the next; 0: never
    stop_counts: int = 0  # at a stumble the belt stands for that long
    reverse_counts: int = 0  # and then runs back by that much, and on again
    bin_full: Span | None = None
    air_low: Span | None = None
    encoder_lost: Span | None = None  # parts go on, counts do not

    def is_in(self, span: Span | None, seconds: float | None) -> bool:
        return span is not None and seconds is not None and span[0] <= seconds < span[1]


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of one direction: at `raw` of the belt's own counts it ends at `count`."""

    count: int
    raw: int


class Drive:
    """Turns the counts of a belt that only ever moves on into those of one that stumbles."""

    def __init__(self, bad: BadBelt, start: int) -> None:
        self._bad = bad
        self._raw = self._count = start
        self._next = start + bad.stumble_every
        self._stop_left = self._back_left = 0

    def to(self, raw: int) -> list[Leg]:
        """The legs up to `raw`, in order; empty when the belt has not moved."""
        legs = []
        while self._raw < raw:
            left = raw - self._raw
            if self._stop_left:
                step = min(left, self._stop_left)
                self._stop_left -= step
            elif self._back_left:
                step = min(left, self._back_left)
                self._back_left -= step
                self._count -= step
            else:
                step = self._run(left)
            self._raw += step
            legs.append(Leg(self._count, self._raw))
        return legs

    def _run(self, left: int) -> int:
        if not self._bad.stumble_every:
            self._count += left
            return left
        step = min(left, self._next - self._count)
        self._count += step
        if self._count == self._next:
            self._stop_left, self._back_left = self._bad.stop_counts, self._bad.reverse_counts
            self._next += self._bad.stumble_every
        return step
