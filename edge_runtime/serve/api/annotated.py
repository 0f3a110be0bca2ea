"""The answer to a picture, drawn into it for people: where the model looked, and its verdict in a bar above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from edge_runtime.core.messages import Region, Verdict
from edge_runtime.media.lettering import draw_cross, draw_question, draw_tick, fit, text_width, write
from edge_runtime.recording.picture import GROUND, INK, QUIET, VERDICT_COLOURS, draw_finding

BAR = 64  # pixels
LEAST_WIDTH = 480  # so that the bar holds its words
MOST_SIDE = 4096
QUALITY = 90
_SIGNS = {Verdict.ACCEPT: draw_tick, Verdict.REJECT: draw_cross, Verdict.UNSURE: draw_question}


def annotated_jpeg(image: NDArray[np.uint8], entry: dict[str, Any]) -> bytes:
    """image: RGB (height, width, 3). entry: one of `predict`, with a verdict."""
    picture = _sized(image)
    verdict = Verdict(entry["verdict"])
    colour = VERDICT_COLOURS[verdict]
    draw_finding(picture, None, _regions(entry["regions"]), verdict)
    bar = np.full((BAR, picture.shape[1], 3), GROUND, np.uint8)
    ink = GROUND if verdict is Verdict.UNSURE else INK  # white on amber has too little contrast
    block = 64 + text_width(str(verdict).upper(), 24, bold=True) + 16
    cv2.rectangle(bar, (0, 0), (block, BAR - 1), colour, cv2.FILLED)
    _SIGNS[verdict](bar, (34, BAR // 2), 18, ink, colour)
    write(bar, str(verdict).upper(), (62, BAR // 2 + 8), 24, ink, bold=True)
    room = picture.shape[1] - block - 32
    write(bar, fit(str(entry["reason"]), 20, room), (block + 16, 28), 20, INK)
    write(bar, fit(str(entry["model"]), 15, room), (block + 16, 50), 15, QUIET)
    whole = np.ascontiguousarray(np.concatenate([bar, picture]))
    return bytes(simplejpeg.encode_jpeg(whole, QUALITY, "RGB"))


def _sized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(max(1.0, LEAST_WIDTH / width), MOST_SIDE / max(height, width))
    if scale == 1.0:
        return image.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8)


def _regions(entries: Sequence[dict[str, Any]]) -> list[Region]:
    return [Region(one["x"], one["y"], one["w"], one["h"], one["score"], one["label"]) for one in entries]
