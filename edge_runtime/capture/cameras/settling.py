"""When a camera that was just opened shows what is there: exposure has settled.

Webcams give black frames first and then take a dozen more until gain and exposure stand still. None of these may become
a part's picture. Settled is a picture as bright as the two before it and brighter than black. A station that is really
dark never gets there, so waiting ends after a time or a number of pictures; what is handed out then is for the picture
gate to judge. Pure: times go in, an answer comes out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.clock import SECOND

EVERY = 16  # rows and columns that are looked at: 10 us for 1280x720
BLACK = 17.0  # mean level; black is 16 where a driver hands video levels through
STEADY_PICTURES = 3
STEADY_SHARE, STEADY_LEVELS = 0.03, 1.0  # by which pictures in a row may differ: a part moves, exposure stands
PATIENCE_NS = 3 * SECOND  # from the first picture; slow webcams settle within two seconds
PATIENCE_PICTURES = 120  # of a fast one


class Settling:
    """`is_done` for each picture in turn; once it has said so, the camera is settled."""

    def __init__(self) -> None:
        self.skipped = 0
        self._levels: list[float] = []
        self._since_ns: int | None = None
        self._is_done = False

    def is_done(self, image: NDArray[np.uint8], now_ns: int) -> bool:
        """Whether this picture may be handed out. now_ns: monotonic."""
        if self._is_done:
            return True
        if self._since_ns is None:
            self._since_ns = now_ns
        self._levels = [*self._levels[1 - STEADY_PICTURES :], float(image[::EVERY, ::EVERY].mean())]
        waited = now_ns - self._since_ns >= PATIENCE_NS or self.skipped >= PATIENCE_PICTURES
        self._is_done = waited or self._is_steady()
        self.skipped += not self._is_done
        return self._is_done

    def _is_steady(self) -> bool:
        least, most = min(self._levels), max(self._levels)
        is_full = len(self._levels) == STEADY_PICTURES
        return is_full and least > BLACK and most - least <= STEADY_LEVELS + STEADY_SHARE * most
