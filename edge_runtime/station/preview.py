"""The part to look at, for whoever looks: a tap that costs the line one reference a part until somebody asks.

Pictures are scaled and encoded on the thread of whoever asks, never on the line's, and that thread steps back behind
all that the line computes: with eight tabs and one that reloads the line's p99 was 1.3 times that of the line alone,
without stepping back 2.9 (`tools/bench/viewers`, two cores that others used as well). A part that was not accepted is
shown before a newer one that was, so that a screen which looks a few times a second misses no reject of ten a second.
"""

from __future__ import annotations

import itertools
import os
import threading
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import simplejpeg

from edge_runtime.core.errors import UsageError
from edge_runtime.core.messages import Decision, Event, Frame, GateReport, HumanLabel, Prediction, Trigger, Verdict
from edge_runtime.core.part_view import PartView
from edge_runtime.core.typed_json import to_json
from edge_runtime.recording.evidence import encode_heat

if TYPE_CHECKING:
    from numpy.typing import NDArray

NICENESS = 10  # of a thread that draws; it ends with its answer
WIDEST = 1280  # pixels; who must see more opens the kept picture
QUALITY = 85


class _Shown(NamedTuple):
    seq: int
    decision: Decision
    frame: Frame | None
    prediction: Prediction | None


class Preview:
    """A tap of the line; `answer` is called on any thread."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self._newest: _Shown | None = None
        self._abnormal: _Shown | None = None

    def triggered(self, trigger: Trigger) -> None: ...
    def ended(self, report: GateReport) -> None: ...
    def labelled(self, label: HumanLabel) -> None: ...
    def happened(self, event: Event) -> None: ...

    def decided(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
        shown = _Shown(next(self._count), decision, frame, prediction)
        self._newest = shown
        if decision.verdict is not Verdict.ACCEPT:
            self._abnormal = shown

    def answer(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """The part to look at after the one of number `after`; empty when there is none. Raises UsageError."""
        after = words.get("after", 0)
        if not isinstance(after, int) or isinstance(after, bool):
            raise UsageError(f"after is {after!r}, not the number of a part that was shown")
        shown = self._worth_showing(after)
        if shown is None:
            return {}
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        return to_json(_view(shown))

    def _worth_showing(self, after: int) -> _Shown | None:
        newest, abnormal = self._newest, self._abnormal
        if newest is None:
            return None
        if after > newest.seq:  # of an earlier run
            after = 0
        if abnormal is not None and abnormal.seq > after:
            return abnormal
        return newest if newest.seq > after else None


def _view(shown: _Shown) -> PartView:
    decision, prediction = shown.decision, shown.prediction
    image = shown.frame.image if shown.frame else None
    height, width = image.shape[:2] if image is not None else (0, 0)
    heat = prediction.heat if prediction else None
    return PartView(
        seq=shown.seq,
        part=f"{decision.key.boot_id:04x}-{decision.key.part_id}",
        verdict=decision.verdict,
        cause=decision.cause,
        reason=decision.reason,
        score=decision.score,
        ms=round((decision.decided_ns - decision.trigger_ns) / 1e6, 2),
        model=decision.model,
        regions=prediction.regions if prediction else (),
        width=width,
        height=height,
        picture=b64encode(_jpeg(image)).decode() if image is not None else "",
        heat=b64encode(encode_heat(heat)).decode() if heat is not None else "",
    )


def encode_view(image: NDArray[np.uint8]) -> bytes:
    """A JPEG for a screen, made on this thread, which steps back for it and ends with its answer."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    return _jpeg(image)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    height, width = image.shape[:2]
    if width > WIDEST:
        size = (WIDEST, max(1, round(height * WIDEST / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    pixels = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))
