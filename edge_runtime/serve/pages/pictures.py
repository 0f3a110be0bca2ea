"""Kept pictures for viewers: read once, scaled to the few sizes that pages use, and shared by all who look.

What was made stays in memory within a bound, the least used goes first. A picture as it is in the file is not decoded.
What decodes and paints (painting.py, 30 MB with its libraries) is imported when somebody first looks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from edge_runtime.core.errors import StorageError

WIDTHS = (320, 960)  # of the strip, of the large place on a phone; 0 is the file itself
MOST_BYTES = 48 * 2**20  # about 1500 pictures of the strip

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
        from edge_runtime.serve.pages.painting import scaled

        return "image/jpeg", scaled(content, width)

    def _heat(self, file: str) -> Picture:
        path = self._path(file)
        try:
            content = path.with_suffix(".heat.png").read_bytes()
        except OSError as err:
            raise StorageError(f"no heat map was kept beside {file}") from err
        from edge_runtime.serve.pages.painting import painted_heat

        return "image/png", painted_heat(content)
