"""What the process that holds the sound device says to the one that listens: framed messages on a pipe."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

_HEADER = struct.Struct("<BIQQI")  # kind, overruns so far, captured_ns, read_ns, bytes that follow
MOST_BYTES = 1 << 20  # a list of devices is the longest; more is nonsense


class Kind(IntEnum):
    HELLO = 0  # Python is up, the sound library is being asked
    DEVICES = 1  # JSON: the devices that can record
    OPENED = 2  # text: what was opened, and how
    CHUNK = 3  # int16, mono, of the rate that was asked for
    FAULT = 4  # text: why there is no more; the process ends


class Message(NamedTuple):
    kind: Kind
    body: bytes = b""
    overruns: int = 0
    captured_ns: int = 0  # CLOCK_MONOTONIC, which all processes share
    read_ns: int = 0  # when the device handed it out


def encode(message: Message) -> bytes:
    return _HEADER.pack(message.kind, message.overruns, message.captured_ns, message.read_ns, len(message.body)) + (
        message.body
    )


class Decoder:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now. Raises ValueError on what is no message."""
        self._buffer += data
        out: list[Message] = []
        while len(self._buffer) >= _HEADER.size:
            kind, overruns, captured_ns, read_ns, length = _HEADER.unpack_from(self._buffer)
            if length > MOST_BYTES:
                raise ValueError(f"a message of {length} bytes")
            if len(self._buffer) < _HEADER.size + length:
                break
            body = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
            del self._buffer[: _HEADER.size + length]
            out.append(Message(Kind(kind), body, overruns, captured_ns, read_ns))
        return out
