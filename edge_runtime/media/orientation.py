"""How a picture is to be turned before anybody looks at it: the orientation tag of Exif, in JPEG and PNG.

A phone or a camera that was held upright stores the rows of its sensor and this one number; every viewer turns the
picture. What was taught or judged lying on its side would be another part than the one that people saw. Damaged or
absent tags mean "as it is".
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

AS_IT_IS = 1
_TAG, _SHORT = 0x0112, 3
_MOST_ENTRIES = 512  # of a directory; the first one of a camera has some 20
_EXIF = b"Exif\x00\x00"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length
_START_OF_SCAN = 0xDA


def orientation(content: bytes) -> int:
    """The tag's value, 1..8 (Exif 2.32, section 4.6.4); 1 where there is none. content: a whole JPEG or PNG file."""
    tiff = _exif_of_jpeg(content) if content.startswith(b"\xff\xd8") else _exif_of_png(content)
    try:
        found = _read_tag(tiff)
    except struct.error:
        return AS_IT_IS
    return found if 1 <= found <= 8 else AS_IT_IS


def turn(pixels: NDArray[np.uint8], how: int) -> NDArray[np.uint8]:
    """The picture as it is meant to be seen. pixels: uint8 (height, width, ...); how: 1..8."""
    if how in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if how in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if how in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _exif_of_jpeg(content: bytes) -> bytes:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _START_OF_SCAN:
            break
        (length,) = struct.unpack_from(">H", content, at + 2)
        if marker == 0xE1 and content.startswith(_EXIF, at + 4):
            return content[at + 4 + len(_EXIF) : at + 2 + length]
        at += 2 + length
    return b""


def _exif_of_png(content: bytes) -> bytes:
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content.startswith(b"eXIf", at + 4):
            return content[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _read_tag(tiff: bytes) -> int:
    """Out of the first directory of a TIFF header. Raises struct.error where it is cut off."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return AS_IT_IS
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(min(entries, _MOST_ENTRIES)):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
        if tag == _TAG and kind == _SHORT and count == 1:
            return int(value)
    return AS_IT_IS
