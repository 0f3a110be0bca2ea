"""The eyes of the judge's host: which part a trigger belongs to, and what is wrong with it.

Parts are known from the truth that the belt writes, as a camera at the eye would see them. A trigger is joined with its
part by encoder, relative to the trigger before it, and by time when there is none before it in this boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

QUARTERS = 4
SAME_PLACE_COUNTS = 1.0
BODY_COUNTS = 24  # a second trigger inside a part (a bounce, a belt that turned back) is that part's
NEAR_NS = 15_000_000  # an eye time from related clocks is good to 2 ms; parts are 35 ms apart and more
DEFECTIVE_SHARE = 0.3
INFER_MS = (5.0, 60.0)


def is_defective(seed: int, index: int) -> bool:
    return Random(f"part {seed} {index}").random() < DEFECTIVE_SHARE


@dataclass(slots=True)
class Seen:
    index: int
    count: float  # place on the belt
    at_ns: int


@dataclass(slots=True)
class Inspector:
    seed: int
    rng: Random = field(init=False)
    parts: list[Seen] = field(default_factory=list)
    _known: dict[int, tuple[int, float]] = field(default_factory=dict)  # boot id -> encoder and place of its last part

    def __post_init__(self) -> None:
        self.rng = Random(self.seed + 17)

    def see(self, facts: Iterable[Mapping[str, Any]]) -> None:
        for fact in facts:
            if fact["ev"] == "part":
                self.parts.append(Seen(fact["index"], fact["quarter"] / QUARTERS, fact["ns"]))

    def part_of(self, boot_id: int, encoder: int, at_ns: int) -> Seen | None:
        part = self._by_encoder(boot_id, encoder) or self._by_time(at_ns)
        if part is not None:
            last = self._known.get(boot_id)
            if last is None or last[1] < part.count:
                self._known[boot_id] = (encoder, float(int(part.count)))
        return part

    def _by_encoder(self, boot_id: int, encoder: int) -> Seen | None:
        if boot_id not in self._known:
            return None
        last_encoder, last_count = self._known[boot_id]
        moved = (encoder - last_encoder + 2**31) % 2**32 - 2**31
        count = last_count + moved
        best = min(self._recent(), key=lambda part: abs(int(part.count) - count), default=None)
        if best is not None and abs(int(best.count) - count) <= SAME_PLACE_COUNTS:
            return best
        inside = [part for part in self._recent() if 0 <= count - part.count <= BODY_COUNTS]
        return inside[-1] if inside else None

    def _by_time(self, at_ns: int) -> Seen | None:
        best = min(self._recent(), key=lambda part: abs(part.at_ns - at_ns), default=None)
        return best if best is not None and abs(best.at_ns - at_ns) <= NEAR_NS else None

    def _recent(self) -> list[Seen]:
        return self.parts[-200:]

    def think_ns(self) -> int:
        """How long a verdict takes."""
        return int(self.rng.uniform(*INFER_MS) * 1e6)
