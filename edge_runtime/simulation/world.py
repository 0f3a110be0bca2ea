"""The simulated belt and its injected faults: pure functions of configuration, number of parts and the belt's start.

Camera, photo-eye and controller run in different processes and never talk about the world: each holds a copy and
computes the same answers. Only one number is shared, the moment at which the belt starts moving (when the controller is
first armed). Nothing is drawn in sequence: every question about part `index` is answered from a hash of (seed, index,
question), so that a process that starts in the middle, or skips parts, still agrees with the others.

Counts are plain integers that go on growing; on the wire they are u32 (`wire_count`). The encoder starts a few seconds
of travel below the wrap, as the Linux kernel's jiffies do, so that every run crosses it. No numpy and no pydantic here:
the controller's process imports this file.
"""

from __future__ import annotations

import os
import weakref
from ctypes import c_int64, sizeof
from dataclasses import dataclass, field
from mmap import mmap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.config.schema import WorldConfig

SECOND_NS = 1_000_000_000
U32 = 2**32
WRAP_AFTER_S = 5  # travel from the belt's start to the first wrap of the encoder
LEAD_S = 0.5  # travel before the first part: the box has just armed the controller and opens its eyes
JITTER = 0.2  # of the pitch, either way: two parts are never closer than 60 % of it


class BeltSwitch:
    """When the belt began to move, its feeder ended or a hold began; seen by every process that it is pickled to.

    A hold that ends moves the start forward by its length: everything counted from the start goes on where it stopped.
    """

    def __init__(self, shared: str = "") -> None:
        """shared: the memory of another one, as a file."""
        fd = os.open(shared, os.O_RDWR | os.O_CLOEXEC) if shared else os.memfd_create("belt")
        weakref.finalize(self, os.close, fd)
        numbers = c_int64 * 3
        os.ftruncate(fd, sizeof(numbers))
        self._ns = numbers.from_buffer(mmap(fd, sizeof(numbers)))
        self._file = f"/proc/{os.getpid()}/fd/{fd}"

    def __reduce__(self) -> tuple[Any, ...]:
        return BeltSwitch, (self._file,)  # to be opened while this one lives

    @property
    def start_ns(self) -> int:
        """CLOCK_MONOTONIC nanoseconds, 0 while the belt stands still. One aligned 64-bit load, so never torn."""
        return self._ns[0]

    @property
    def feed_end_ns(self) -> int:
        """From here on no new parts come; 0 while they do."""
        return self._ns[1]

    @property
    def held_since_ns(self) -> int:
        """The belt stands here until the hold ends; 0 while it moves."""
        return self._ns[2]

    def begin(self, now_ns: int) -> None:
        """Start the belt; later calls change nothing."""
        if self._ns[0] == 0:
            self._ns[0] = now_ns

    def end_feed(self, now_ns: int) -> None:
        """Lay no more parts on the belt, which goes on moving; later calls change nothing."""
        if self._ns[1] == 0:
            self._ns[1] = now_ns

    def hold(self, now_ns: int) -> None:
        """Stop the belt where it is. For one process, the controller's; repeats change nothing."""
        if self._ns[0] and not self._ns[2]:
            self._ns[2] = now_ns

    def resume(self, now_ns: int) -> None:
        """Let a held belt go on. A reader between the two stores sees it a little back, never ahead."""
        if self._ns[2]:
            self._ns[0] += now_ns - self._ns[2]
            self._ns[2] = 0


def wire_count(count: int) -> int:
    """A count as the wire has it: u32."""
    return count % U32


def draw(seed: int, index: int, salt: int) -> float:
    """A fair number in [0, 1) that depends on nothing but its arguments (splitmix64's finaliser over them)."""
    x = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + (salt + 1) * 0x94D049BB133111EB) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) % 2**64
    return ((x ^ (x >> 31)) >> 11) / 2**53


SPACING, DROPPED, FLICKER = 1, 2, 3  # salts of `draw`


@dataclass(frozen=True)
class Belt:
    """Where the belt is and when which part breaks the eye. Part indices count from 0; `parts` None is endless."""

    seed: int = 1
    parts_per_s: float = 10.0
    counts_per_s: int = 2000
    parts: int | None = None
    switch: BeltSwitch = field(default_factory=BeltSwitch, compare=False)

    @property
    def pitch_counts(self) -> float:
        return self.counts_per_s / self.parts_per_s

    @property
    def first_count(self) -> int:
        """The encoder while the belt stands still."""
        return U32 - WRAP_AFTER_S * self.counts_per_s

    def begin(self, now_ns: int) -> None:
        self.switch.begin(now_ns)

    def encoder_at(self, now_ns: int) -> int:
        """Counts at a moment, unwrapped."""
        moving_ns = max(0, self._moved_until(now_ns) - self.switch.start_ns) if self.switch.start_ns else 0
        return self.first_count + moving_ns * self.counts_per_s // SECOND_NS

    def _moved_until(self, now_ns: int) -> int:
        """`now_ns`, or the moment at which the belt was held."""
        return min(now_ns, self.switch.held_since_ns or now_ns)

    def has_part(self, index: int) -> bool:
        if index < 0 or (self.parts is not None and index >= self.parts):
            return False
        end_ns = self.switch.feed_end_ns
        return not end_ns or (self.switch.start_ns > 0 and self.switch.start_ns + self.eye_offset_ns(index) < end_ns)

    def eye_counts(self, index: int) -> int:
        """Counts, unwrapped, at which part `index` breaks the eye."""
        shift = (2.0 * draw(self.seed, index, SPACING) - 1.0) * JITTER
        return self.first_count + int(LEAD_S * self.counts_per_s + (index + 1 + shift) * self.pitch_counts)

    def eye_ns(self, index: int) -> int | None:
        """When part `index` breaks the eye: `encoder_at` is exactly `eye_counts`. None while the belt stands still."""
        return self.switch.start_ns + self.eye_offset_ns(index) if self.switch.start_ns else None

    def eye_offset_ns(self, index: int) -> int:
        """The same moment, from the start of the belt."""
        return -(-(self.eye_counts(index) - self.first_count) * SECOND_NS // self.counts_per_s)  # rounded up

    def is_clear(self, now_ns: int, gate_counts: int) -> bool:
        """Whether the last part there will be is `gate_counts` past the eye. Never, while an endless feeder runs."""
        if not self.switch.start_ns:
            return False
        index = self.index_at(min(now_ns, self.switch.feed_end_ns or now_ns))
        if self.has_part(index):
            return False
        last = (index if self.parts is None else min(index, self.parts)) - 1
        return last < 0 or self.encoder_at(now_ns) > self.eye_counts(last) + gate_counts

    def index_at(self, now_ns: int) -> int:
        """The first part that has not yet broken the eye. May be equal to `parts` or larger, when all have."""
        if not self.switch.start_ns:
            return 0
        moved = self.encoder_at(now_ns) - self.first_count - LEAD_S * self.counts_per_s
        index = max(0, int(moved / self.pitch_counts) - 2)
        until_ns = self._moved_until(now_ns)
        while self.switch.start_ns + self.eye_offset_ns(index) <= until_ns:
            index += 1
        return index


@dataclass(frozen=True)
class World:
    """The belt, what lies on it, and what goes wrong with light and camera."""

    belt: Belt = field(default_factory=Belt)
    defect_share: float = 0.15
    oil_share: float = 0.05
    stain_share: float = 0.05
    light: float = 1.0
    drop_frames: float = 0.0
    light_drift: float = 0.0  # per 1000 parts, relative
    focus_drift_px: float = 0.0  # per 1000 parts
    camera_stops_at: int = 0  # counted from 1, as part ids are; 0 never
    camera_stops_for: int = 0
    lamp_fails_at: int = 0
    lamp_fails_for: int = 0
    lamp_flicker: float = 0.0
    lamp_left: float = 0.01
    camera_freezes_at: int = 0
    camera_freezes_for: int = 0
    blurred_at: int = 0
    blurred_for: int = 0
    blurred_px: float = 0.0

    @classmethod
    def from_config(cls, cfg: WorldConfig, parts: int | None = None, switch: BeltSwitch | None = None) -> World:
        bad = cfg.bad_days
        return cls(
            belt=Belt(cfg.seed, cfg.parts_per_s, cfg.counts_per_s, parts, switch or BeltSwitch()),
            defect_share=cfg.defect_share,
            oil_share=cfg.oil_share,
            stain_share=cfg.stain_share,
            light=cfg.light,
            drop_frames=bad.drop_frames,
            light_drift=bad.light_drift,
            focus_drift_px=bad.focus_drift_px,
            camera_stops_at=bad.camera_stops_at,
            camera_stops_for=bad.camera_stops_for,
            lamp_fails_at=bad.lamp_fails_at,
            lamp_fails_for=bad.lamp_fails_for,
            lamp_flicker=bad.lamp_flicker,
            lamp_left=bad.lamp_left,
            camera_freezes_at=bad.camera_freezes_at,
            camera_freezes_for=bad.camera_freezes_for,
            blurred_at=bad.blurred_at,
            blurred_for=bad.blurred_for,
            blurred_px=bad.blurred_px,
        )

    def is_dropped(self, index: int) -> bool:
        """Whether the frame of part `index` is lost on its way."""
        return draw(self.belt.seed, index, DROPPED) < self.drop_frames

    def is_silent(self, index: int) -> bool:
        """Whether the camera has stopped sending while part `index` passes."""
        return _is_within(index, self.camera_stops_at, self.camera_stops_for)

    def is_frozen(self, index: int) -> bool:
        """Whether part `index` gets the picture that was taken before."""
        return _is_within(index, self.camera_freezes_at, self.camera_freezes_for)

    def has_frame(self, index: int) -> bool:
        return not (self.is_dropped(index) or self.is_silent(index))

    def light_at(self, index: int) -> float:
        """Gain of the lamp for part `index`, 0 is darkness; drift alone never brings it below a hundredth."""
        light = max(min(self.light, 0.01), self.light * (1.0 + self.light_drift * index / 1000.0))
        fails = _is_within(index, self.lamp_fails_at, self.lamp_fails_for)
        return light * self.lamp_left if fails or draw(self.belt.seed, index, FLICKER) < self.lamp_flicker else light

    def focus_px_at(self, index: int) -> float:
        """Blur of the lens for part `index`, as a Gaussian's sigma in pixels."""
        blurred = self.blurred_px if _is_within(index, self.blurred_at, self.blurred_for) else 0.0
        return max(self.focus_drift_px * index / 1000.0, blurred)


def _is_within(index: int, first: int, parts: int) -> bool:
    """first: counted from 1, as part ids are; 0 never."""
    return first > 0 and first - 1 <= index < first - 1 + parts
