"""How processes of the box talk over a connected socket: JSON objects, one a line, and blocks of bytes behind them.

Standard library only. Lines are bounded in size and in time, however their bytes come: neither side may be held up, or
made to hold more, by the other.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from edge_runtime.core.errors import ProtocolError

MOST_LINE = 64 * 1024
MOST_BLOCK = 4 << 20  # 30 s of sound at 48 kHz are 2.9 MB
PIECE = 64 * 1024


class HungUp(ProtocolError):
    """The far side closed the connection before it had said all."""


class Lines:
    """Reads lines and blocks within a time, counted from the start or from the last `within`.

    Raises ProtocolError when the far side ends, talks too much or talks nonsense, and TimeoutError.
    """

    def __init__(
        self, sock: socket.socket, within_s: float, most_line: int = MOST_LINE, most_block: int = MOST_BLOCK
    ) -> None:
        self._sock = sock
        self._most_line = most_line
        self._most_block = most_block
        self._until = time.monotonic() + within_s
        self._buffer = bytearray()

    def within(self, seconds: float) -> Lines:
        """A new time for what follows; 0: only what is there already."""
        self._until = time.monotonic() + seconds
        return self

    def line(self) -> dict[str, Any]:
        """One JSON object."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > self._most_line:
                raise ProtocolError(f"a line of more than {self._most_line} bytes")
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return as_object(bytes(line))

    def block(self, size: int) -> bytes:
        """So many bytes, `most_block` at most."""
        if not 0 <= size <= self._most_block:
            raise ProtocolError(f"a block of {size} bytes; {self._most_block} are taken at most")
        while len(self._buffer) < size:
            self._more()
        block = bytes(self._buffer[:size])
        del self._buffer[:size]
        return block

    def _more(self) -> None:
        self._sock.settimeout(max(0.0, self._until - time.monotonic()))
        try:
            piece = self._sock.recv(PIECE)
        except (TimeoutError, BlockingIOError):
            raise TimeoutError("the time is over") from None
        if not piece:
            raise HungUp("the connection was closed in the middle")
        self._buffer += piece


def as_line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def as_object(line: bytes) -> dict[str, Any]:
    """Raises ProtocolError on what is no JSON object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"no JSON: {line[:80]!r}") from err
    if not isinstance(message, dict):
        raise ProtocolError(f"no JSON object: {line[:80]!r}")
    return message
