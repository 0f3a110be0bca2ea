"""Which frame shows which part. A frame is never given to a part because it is the latest one.

Frame and trigger arrive on different threads in either order, and each may be missing. They are paired by what the
camera stamps: the part's key, the encoder count latched at exposure, or the time of exposure. A frame pairs with at
most one part and a part with at most one frame; what finds no partner waits for a bounded time and in bounded number.

Distance decides only while it cannot mean two parts: the tolerance is narrowed to less than half of the closest spacing
among the last RECENT_SPACINGS triggers (and stamps, with an encoder). An eye that bounces costs the next few parts
their frames, which ends in the safe action; a wide tolerance would cost a scratched part its neighbour's verdict. By
time the nearest frame that is there is taken; it is not compared with the next one, which a free-running camera has yet
to take.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.config.schema import CameraConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.errors import ConfigError
from edge_runtime.core.messages import Frame, PartKey, Trigger

Pair = tuple[Trigger, Frame]

HELD_FRAMES = 8  # 2.8 MB each at 1280x720; a trigger event is late by a few frames at most
HELD_TRIGGERS = 128
HOLD_NS = 2 * SECOND  # a frame whose trigger is not there by then belongs to nobody
REMEMBERED = 256  # keys and sequence numbers, against repeats
RECENT_SPACINGS = 16
U32 = 2**32


class _Measure(Protocol):
    """How far a frame is from a part on one scale. Both give None where the scale does not apply."""

    tolerance: int
    frames_are_parts: bool  # a frame is only taken when a part is there, so that spacing of frames is spacing of parts

    def of_trigger(self, trigger: Trigger) -> int: ...
    def of_frame(self, frame: Frame) -> int | None: ...
    def distance(self, a: int, b: int) -> int: ...


class _ByEncoder:
    frames_are_parts = True

    def __init__(self, cfg: CameraConfig) -> None:
        self.tolerance = cfg.tolerance_counts

    def of_trigger(self, trigger: Trigger) -> int:
        return trigger.encoder

    def of_frame(self, frame: Frame) -> int | None:
        return frame.encoder

    def distance(self, a: int, b: int) -> int:
        return abs((a - b + U32 // 2) % U32 - U32 // 2)


class _ByTime:
    frames_are_parts = False

    def __init__(self, cfg: CameraConfig) -> None:
        self.tolerance = round(cfg.tolerance_ms * MS)
        self._delay_ns = round(cfg.delay_ms * MS)

    def of_trigger(self, trigger: Trigger) -> int:
        return trigger.at_ns + self._delay_ns

    def of_frame(self, frame: Frame) -> int | None:
        return frame.captured_ns

    def distance(self, a: int, b: int) -> int:
        return abs(a - b)


class _Seen:
    """The last REMEMBERED things. Not a deque: looking through 256 of them costs 25 us with cold caches."""

    def __init__(self) -> None:
        self._things: OrderedDict[Hashable, None] = OrderedDict()

    def is_new(self, thing: Hashable) -> bool:
        """Whether it was not among them; from now on it is."""
        if thing in self._things:
            return False
        self._things[thing] = None
        if len(self._things) > REMEMBERED:
            self._things.popitem(last=False)
        return True


class Pairing:
    """Matches triggers with frames. Any thread may call any method; none blocks, none reads a device."""

    def __init__(self, pairs_by: str, cfg: CameraConfig, clock: Clock) -> None:
        """pairs_by: "part", "encoder" or "time". Raises ConfigError for anything else."""
        measures: Mapping[str, type[_ByEncoder] | type[_ByTime]] = {"encoder": _ByEncoder, "time": _ByTime}
        if pairs_by != "part" and pairs_by not in measures:
            raise ConfigError(f"camera.pair_by = '{pairs_by}': frames pair by part, encoder or time")
        self._measure: _Measure | None = measures[pairs_by](cfg) if pairs_by in measures else None
        self._clock = clock
        self._lock = threading.Lock()
        self._triggers: dict[PartKey, Trigger] = {}
        self._frames: deque[Frame] = deque()
        self._seen_keys = _Seen()
        self._seen_frames = _Seen()
        self._spacings: deque[int] = deque(maxlen=RECENT_SPACINGS)
        self._last_trigger: int | None = None
        self._last_frame: int | None = None
        self.paired = 0
        self.unpaired_frames = 0
        self.repeats = 0

    def on_trigger(self, trigger: Trigger) -> list[Pair]:
        """A part passed the eye. The pair it completes, if its frame is there already."""
        with self._lock:
            if not self._seen_keys.is_new(trigger.key):
                self.repeats += 1
                return []
            self._expire()
            if self._measure is not None:
                here = self._measure.of_trigger(trigger)
                self._note_spacing(self._last_trigger, here)
                self._last_trigger = here
            slot = self._nearest_frame(trigger)
            if slot is None:
                if len(self._triggers) >= HELD_TRIGGERS:
                    del self._triggers[next(iter(self._triggers))]  # oldest; its deadline is long over
                self._triggers[trigger.key] = trigger
                return []
            frame = self._frames[slot]
            del self._frames[slot]
            self.paired += 1
            return [(trigger, frame)]

    def on_frame(self, frame: Frame) -> list[Pair]:
        """A frame arrived. The pair it completes, if its trigger is there already."""
        with self._lock:
            # With the time, because a camera that restarted may count from its start again.
            if not self._seen_frames.is_new((frame.seq, frame.captured_ns)):
                self.repeats += 1
                return []
            self._expire()
            if self._measure is not None and self._measure.frames_are_parts:
                here = self._measure.of_frame(frame)
                self._note_spacing(self._last_frame, here)
                self._last_frame = here
            trigger = self._nearest_trigger(frame)
            if trigger is not None:
                del self._triggers[trigger.key]
                self.paired += 1
                return [(trigger, frame)]
            if len(self._frames) >= HELD_FRAMES:
                self._frames.popleft()
                self.unpaired_frames += 1
            self._frames.append(frame)
            return []

    def forget(self, key: PartKey) -> None:
        """The part has been decided without a frame: one that comes now is too late."""
        with self._lock:
            self._triggers.pop(key, None)

    def report(self) -> Mapping[str, Any]:
        return {
            "paired": self.paired,
            "unpaired_frames": self.unpaired_frames,
            "repeats": self.repeats,
            "waiting_frames": len(self._frames),
            "waiting_triggers": len(self._triggers),
        }

    def _expire(self) -> None:
        oldest_ns = self._clock() - HOLD_NS
        while self._frames and self._frames[0].captured_ns < oldest_ns:
            self._frames.popleft()
            self.unpaired_frames += 1

    def _note_spacing(self, before: int | None, here: int | None) -> None:
        if self._measure is not None and before is not None and here is not None:
            spacing = self._measure.distance(before, here)
            if spacing > 0:
                self._spacings.append(spacing)

    def _nearest_frame(self, trigger: Trigger) -> int | None:
        return self._nearest([self._distance(trigger, frame) for frame in self._frames])

    def _nearest_trigger(self, frame: Frame) -> Trigger | None:
        triggers = list(self._triggers.values())
        slot = self._nearest([self._distance(trigger, frame) for trigger in triggers])
        return None if slot is None else triggers[slot]

    def _nearest(self, distances: Sequence[int | None]) -> int | None:
        """Index of the smallest distance, None when all are too far."""
        limit = self._limit()
        near = [
            (distance, slot) for slot, distance in enumerate(distances) if distance is not None and distance <= limit
        ]
        return min(near)[1] if near else None

    def _limit(self) -> int:
        tolerance = self._measure.tolerance if self._measure else 0
        return min([tolerance, *((spacing - 1) // 2 for spacing in self._spacings)])

    def _distance(self, trigger: Trigger, frame: Frame) -> int | None:
        """How far apart they are; None where they cannot belong together at all."""
        if self._measure is None:
            return 0 if frame.part == trigger.key else None
        stamp = self._measure.of_frame(frame)
        return None if stamp is None else self._measure.distance(self._measure.of_trigger(trigger), stamp)
