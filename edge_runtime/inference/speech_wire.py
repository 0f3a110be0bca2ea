"""How `run` hands an utterance to `serve`, and what comes back: one JSON line each way over a unix socket.

    {"do": "recognise", "rate_hz": 16000, "samples": 31200, "within_ms": 400}\n + the samples, int16 little-endian
    {"text": "code alpha seven", "confidence": 1.0, "origin": "remote:asr@speech.example:10300"}\n
    {"error": "the speech server ... does not answer"}\n
    {"do": "health"}\n  ->  {"state": "ok", "detail": "...", ...}\n

Standard library only; both processes speak it, so it lives with neither. Lines and sounds are bounded: neither side may
be made to hold more than MOST_BYTES by the other.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from edge_runtime.core.errors import ProtocolError

SOCKET = "speech.sock"
MOST_LINE = 64 * 1024
MOST_SECONDS = 30
MOST_BYTES = MOST_SECONDS * 48_000 * 2
PIECE = 64 * 1024


class Lines:
    """Reads lines and blocks from a connected socket until a point in time. Raises ProtocolError, TimeoutError."""

    def __init__(self, sock: socket.socket, within_s: float) -> None:
        self._sock = sock
        self._until = time.monotonic() + within_s
        self._buffer = bytearray()

    def line(self) -> dict[str, Any]:
        """One JSON object. Raises ProtocolError when the far side ends, talks too much or talks nonsense."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > MOST_LINE:
                raise ProtocolError(f"a line of more than {MOST_LINE} bytes")
            self._more()
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        return as_object(bytes(line))

    def block(self, size: int) -> bytes:
        """So many bytes, MOST_BYTES at most."""
        if not 0 <= size <= MOST_BYTES:
            raise ProtocolError(f"a block of {size} bytes; {MOST_BYTES} are taken at most")
        while len(self._buffer) < size:
            self._more()
        block = bytes(self._buffer[:size])
        del self._buffer[:size]
        return block

    def send(self, data: bytes) -> None:
        """All of it, within the time."""
        self._sock.settimeout(self._left())
        self._sock.sendall(data)

    def _more(self) -> None:
        self._sock.settimeout(self._left())
        piece = self._sock.recv(PIECE)
        if not piece:
            raise ProtocolError("the connection was closed in the middle")
        self._buffer += piece

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        return left


def as_line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def as_object(line: bytes) -> dict[str, Any]:
    """Raises ProtocolError on what is no JSON object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"no JSON: {line[:80]!r}") from err
    if not isinstance(message, dict):
        raise ProtocolError(f"no JSON object: {line[:80]!r}")
    return message
