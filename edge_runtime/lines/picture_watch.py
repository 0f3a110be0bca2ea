"""Asks of each part's picture whether it shows anything, and tells when the camera has gone blind.

The gate knows one picture and belongs to a model. This watch knows the one before as well: a camera that stands still
hands out the same picture for parts that differ. Sensors are never the same twice, noise alone changes most pixels,
so a picture of which not even one pixel in 500 has changed is the one before.

One odd picture is that part's affair. `BLIND_AFTER` in a row are the camera's: its health says so until as many in a
row are good again. Events are told at these changes; single pictures at most once a minute, with how many there were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import CheckPictures
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import Event
from edge_runtime.features.picture_validity import STILL
from edge_runtime.flow.components import Health, State

log = logging.getLogger(__name__)

Gate = Callable[[NDArray[np.uint8]], str]  # picture (h, w, 3) u8 RGB -> what is wrong with it; empty: nothing

BLIND_AFTER = 3  # pictures in a row
TELL_EVERY_NS = 60 * SECOND
SAMPLES = 160  # rows of a picture, and values of each, that are compared with those of the one before
SAME_LEVELS = 1  # as far as JPEG of the same picture may be apart
STILL_SHARE = 0.002  # of the samples that may differ all the same: a clock that is written into the picture
FIX = "check lamp, lens cap, focus and exposure; `edge-runtime io capture` shows what the camera sees"
FIX_STILL = "the camera repeats itself: check its cable and supply, restart it"


class PictureWatch:
    """`look` is called by the thread that has the model; `health` and `report` by any."""

    def __init__(self, camera: str, checks: CheckPictures, clock: Clock, tell: Callable[[Event], None]) -> None:
        self._camera, self._checks, self._clock, self._tell = camera, checks, clock, tell
        self._before: NDArray[np.uint8] | None = None
        self._bad_run = self._good_run = 0
        self._untold = 0
        self._told_ns: int | None = None
        self._blind = ""  # why, while it is
        self._last = ""
        self.invalid = 0

    def look(self, image: NDArray[np.uint8], gate: Gate | None) -> str:
        """What is wrong with a part's picture, or empty. Remembers it for the next part."""
        if gate is None or self._checks is CheckPictures.OFF:
            return ""
        stands_still = self._checks is CheckPictures.ALL and self._is_as_before(image)
        fault = gate(image) or (STILL if stands_still else "")
        self._note(fault)
        return fault

    def health(self) -> Health | None:
        """FAILED with words and the fix while the camera is blind, else None."""
        why = self._blind
        if not why:
            return None
        fix = FIX_STILL if why == STILL else FIX
        return Health(State.FAILED, f"camera '{self._camera}' shows nothing that can be judged: {why}; {fix}")

    def report(self) -> Mapping[str, Any]:
        return {"invalid": self.invalid, "last": self._last, "blind": self._blind}

    def _is_as_before(self, image: NDArray[np.uint8]) -> bool:
        now = _samples(image)
        before, self._before = self._before, now
        if before is None or before.shape != now.shape:
            return False
        return int(np.count_nonzero(cv2.absdiff(before, now) > SAME_LEVELS)) <= STILL_SHARE * now.size

    def _note(self, fault: str) -> None:
        if not fault:
            self._good_run, self._bad_run = self._good_run + 1, 0
            if self._blind and self._good_run >= BLIND_AFTER:
                self._blind = ""
                self._say(EventKind.CAMERA_SEES, parts=self.invalid)
            return
        self._good_run, self._bad_run = 0, self._bad_run + 1
        self.invalid += 1
        self._untold += 1
        self._last = fault
        if self._blind:
            self._blind = fault
        elif self._bad_run >= BLIND_AFTER:
            self._blind = fault
            self._say(EventKind.CAMERA_BLIND, why=fault, parts=self._bad_run)
        if self._told_ns is None or self._clock() - self._told_ns >= TELL_EVERY_NS:
            self._say(EventKind.PICTURE_INVALID, why=fault, parts=self._untold)
            self._told_ns, self._untold = self._clock(), 0

    def _say(self, kind: EventKind, **detail: Any) -> None:
        level = logging.ERROR if kind == EventKind.CAMERA_BLIND else logging.WARNING
        log.log(
            level, "%s camera=%s %s", kind, self._camera, " ".join(f"{key}={value}" for key, value in detail.items())
        )
        self._tell(Event(kind, self._clock(), {"camera": self._camera, **detail}))


def _samples(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Single values on some rows, red, green and blue in turn: whole pixels take ten times as long to collect."""
    rows = image[:: max(1, len(image) // SAMPLES)]
    lines = rows.reshape(len(rows), -1)
    every = max(1, lines.shape[1] // SAMPLES)
    return lines[:, :: every + (every % 3 == 0)].copy()
