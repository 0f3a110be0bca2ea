"""How many bytes of samples a WAV file holds, where its header may be wrong about it.

Recorders that were cut off leave a length of 0 or of all ones, or one that is longer than the file; a recording past
4 GiB leaves what is over after whole turns of the 32-bit counter. What follows the samples tells which it is: chunks
(a list of titles, a cue sheet) or nothing. Where it is neither, most of a shift may be missing, and that is said.
"""

from __future__ import annotations

import string
import struct
from typing import BinaryIO

UNFINISHED = (0, 0xFFFF_FFFF)  # what stands there until a recorder closes its file
TURN = 1 << 32  # of the length's counter
_HEAD = struct.Struct("<4sI")
_TAGS = (b"TAG", b"ID3", b"APETAGEX")  # that players append
_NAME = frozenset((string.ascii_letters + string.digits + " _-").encode())
_LOOK = 1 << 16  # bytes of what follows that are looked at for being nothing but zeros


def sample_bytes(file: BinaryIO, start: int, told: int, size: int) -> int | None:
    """Bytes of samples from `start`, of a file of `size` bytes whose header told of `told`.

    None: more follows than was told, and nothing says what it is.
    """
    rest = size - start
    if told in UNFINISHED:
        return told if told == 0 and rest and _is_end(file, start, size) else rest
    if told >= rest:
        return rest
    for turns in range((rest - told) // TURN, -1, -1):
        length = told + turns * TURN
        if _is_end(file, start + length, size):
            return length
    return None


def next_chunk(file: BinaryIO, end: int) -> int:
    """Where the chunk after one that ends here begins: at an even place, but some writers do not pad."""
    if end % 2 == 0:
        return end
    file.seek(end)
    here = file.read(5)
    is_padded = len(here) < 5 or _NAME.issuperset(here[1:]) or not _NAME.issuperset(here[:4])
    return end + 1 if is_padded else end


def chunks_after(file: BinaryIO, at: int, size: int) -> list[bytes]:
    """Names of the chunks that follow, as far as they are chunks."""
    names: list[bytes] = []
    at += at % 2
    while size - at >= _HEAD.size:
        file.seek(at)
        name, length = _HEAD.unpack(file.read(_HEAD.size))
        if not _NAME.issuperset(name) or at + _HEAD.size + length > size:
            break
        names.append(name)
        at += _HEAD.size + length + length % 2
    return names


def _is_end(file: BinaryIO, at: int, size: int) -> bool:
    """Whether from `at` on there are chunks, tags or padding to the end, and no samples."""
    at += at % 2 if at < size else 0
    while size - at >= _HEAD.size:
        file.seek(at)
        head = file.read(_LOOK)
        if not any(head) or head.startswith(_TAGS):
            return True
        name, length = _HEAD.unpack_from(head)
        if not _NAME.issuperset(name) or at + _HEAD.size + length > size:
            return False
        at += _HEAD.size + length + length % 2
    return True
