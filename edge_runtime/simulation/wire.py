"""What the simulated camera and the process that draws for it say to each other, over a unix stream socket.

Drawing side to camera: HELLO once it is ready, START as soon as the belt moves, then one FRAME per part with its pixels
behind the header. Camera to drawing side: one byte of credit for each frame it has room for, so that neither side ever
blocks in the middle of a picture. A stream socket and one `recv_into` a frame: 1 ms for 1280x720 without the
interpreter lock, against 14.9 ms through `multiprocessing.Queue`.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

MAGIC = 0x4D434445  # "EDCM"
_HEADER = struct.Struct("<IIIIqIII")  # magic, kind, part, encoder, at_ns, width, height, skipped
HEADER_BYTES = _HEADER.size
CREDIT = b"+"


class Kind(IntEnum):
    HELLO = 1  # at_ns: 0; part: the first part that can still be seen
    START = 2  # at_ns: when the belt began to move; again after a hold, and far in the future while it lasts
    FRAME = 3  # at_ns: photo-eye moment, counted from START; followed by width * height * 3 bytes RGB


class Header(NamedTuple):
    kind: Kind
    part: int = 0  # index, from 0
    encoder: int = 0  # u32, latched at the eye
    at_ns: int = 0
    width: int = 0
    height: int = 0
    skipped: int = 0  # frames that were not drawn in time so far

    def pack(self) -> bytes:
        return _HEADER.pack(MAGIC, *self)


def unpack(data: bytes) -> Header:
    """Raises ValueError on anything that is no header."""
    magic, kind, *rest = _HEADER.unpack(data)
    if magic != MAGIC:
        raise ValueError(f"not a simulated camera: it says {data[:4]!r}")
    return Header(Kind(kind), *rest)


def receive_into(sock: socket.socket, room: memoryview) -> bool:
    """Fill `room` from the socket. False when the far side has closed; raises OSError when the line is broken."""
    while room.nbytes:
        got = sock.recv_into(room, room.nbytes, socket.MSG_WAITALL)  # one call: the lock is given up once, not 13 times
        if got == 0:
            return False
        room = room[got:]
    return True


def receive_header(sock: socket.socket) -> Header | None:
    """The next header, None when the far side has closed."""
    data = bytearray(HEADER_BYTES)
    return unpack(bytes(data)) if receive_into(sock, memoryview(data)) else None
