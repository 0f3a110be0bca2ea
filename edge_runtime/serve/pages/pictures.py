"""Kept pictures for viewers: read once, scaled to the few sizes that pages use, and shared by all who look.

What was made stays in memory within a bound, the least used goes first. A picture as it is in the file is not decoded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from edge_runtime.core.errors import StorageError
from edge_runtime.media.picture import decode_picture
from edge_runtime.recording.evidence import load_heat

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTHS = (320, 960)  # of the strip, of the large place on a phone; 0 is the file itself
MOST_BYTES = 48 * 2**20  # about 1500 pictures of the strip
QUALITY = 85
HEAT_WIDTH = 320  # a heat map has 40 columns; smoothed to this it looks like one
HEAT_FROM, HEAT_ALPHA = 0.12, 0.65  # below is the model's noise; the part must be seen through it

Picture = tuple[str, bytes]  # media type, content


class Pictures:
    """Any thread."""

    def __init__(self, state: Path, most_bytes: int = MOST_BYTES) -> None:
        self._state = state.resolve()
        self._most = most_bytes
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[str, int], Picture] = OrderedDict()
        self._bytes = 0

    def picture(self, file: str, width: int) -> Picture:
        """A kept picture at one of WIDTHS, or as it is for 0. Raises StorageError when it is not there any more."""
        return self._shared((file, width), lambda: self._picture(file, width))

    def heat(self, file: str) -> Picture:
        """Its heat map, to be laid over it. Raises StorageError where there is none."""
        return self._shared((file, -1), lambda: self._heat(file))

    def _shared(self, key: tuple[str, int], make: Callable[[], Picture]) -> Picture:
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        made = make()
        with self._lock:
            self._bytes += len(made[1]) - (len(self._made[key][1]) if key in self._made else 0)
            self._made[key] = made
            while self._bytes > self._most:
                self._bytes -= len(self._made.popitem(last=False)[1][1])
        return made

    def _path(self, file: str) -> Path:
        path = (self._state / file).resolve()
        if not path.is_relative_to(self._state):
            raise StorageError(f"{file} is no picture of this box")
        return path

    def _picture(self, file: str, width: int) -> Picture:
        path = self._path(file)
        try:
            content = path.read_bytes()
        except OSError as err:
            raise StorageError(f"the picture {file} is no longer there") from err
        if not width:
            return ("image/png" if path.suffix == ".png" else "image/jpeg"), content
        return "image/jpeg", _scaled(decode_picture(content), width)

    def _heat(self, file: str) -> Picture:
        path = self._path(file)
        heat = load_heat(path.with_suffix(".heat.png"))
        if heat is None:
            raise StorageError(f"no heat map was kept beside {file}")
        return "image/png", paint_heat(heat)


def _scaled(image: NDArray[np.uint8], width: int) -> bytes:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if width < image.shape[1]:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    pixels = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))


def heat_of_png(content: bytes) -> NDArray[np.float32]:
    """The grey PNG of a heat map as 0..1."""
    grey = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(grey, np.float32) / np.float32(255.0)


def paint_heat(heat: NDArray[np.float32]) -> bytes:
    """A PNG with alpha in the colours of heat, transparent where the model saw nothing. heat: (rows, columns) 0..1."""
    size = (HEAT_WIDTH, max(1, round(heat.shape[0] * HEAT_WIDTH / heat.shape[1])))
    smooth = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    colours = cv2.applyColorMap(np.rint(smooth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    alpha = np.clip((smooth - HEAT_FROM) / (1.0 - HEAT_FROM) * 2.0, 0.0, 1.0) * HEAT_ALPHA
    painted = np.dstack([colours, np.rint(alpha * 255).astype(np.uint8)])
    return bytes(cv2.imencode(".png", painted)[1].tobytes())
