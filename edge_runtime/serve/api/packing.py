"""gzip and deflate, both ways. What comes in is unpacked up to a limit, however small it is packed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from io import BytesIO

from edge_runtime.serve.access.refusal import Refusal

LEVEL = 1  # tensors hardly shrink further, and this box has other things to do
PIECE_BYTES = 512 * 1024  # unpacked at a time: the least that a packed body counts for
LEAST_BYTES = 1024  # what is smaller goes as it is
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Unpacking:
    """One packed body, piece by piece: nobody need hold what a piece becomes before there is room for it."""

    def __init__(self, body: bytes, encoding: str) -> None:
        """encoding: the header Content-Encoding. Raises Refusal (415)."""
        self._name = encoding.strip().lower()
        if self._name not in _WINDOWS:
            known = {"Accept-Encoding": "gzip, deflate"}
            raise Refusal(415, f"Content-Encoding {self._name[:20]!r}; gzip and deflate are unpacked", known)
        self._body = memoryview(body)
        self._unpacker = zlib.decompressobj(_WINDOWS[self._name])

    def piece(self) -> bytes:
        """The next PIECE_BYTES at most, empty at the end. Raises Refusal (400)."""
        while not self._unpacker.eof:
            packed: bytes | memoryview = self._unpacker.unconsumed_tail
            if not packed:
                packed, self._body = self._body[:PIECE_BYTES], self._body[PIECE_BYTES:]
            try:
                content = self._unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error as err:
                raise Refusal(400, f"the body is no {self._name} ({err})") from err
            if content:
                return content
            if not packed:
                raise Refusal(400, f"the body ends in the middle of its {self._name}")
        if behind := len(self._unpacker.unused_data) + len(self._body):
            raise Refusal(400, f"{behind} bytes stand behind the {self._name}")
        return b""


async def unpack(body: bytes, encoding: str, most_bytes: int, hold: Callable[[int], None]) -> bytes:
    """The content, made off the event loop. hold: told of bytes before they are made; it may refuse them.

    Raises Refusal: 415, 400 or 413, or what `hold` raises.
    """
    if encoding.strip().lower() in ("", "identity"):
        return body
    unpacking, content, held = Unpacking(body, encoding), BytesIO(), 0
    while True:
        hold(content.tell() + PIECE_BYTES - held)
        held = content.tell() + PIECE_BYTES
        piece = await asyncio.to_thread(unpacking.piece)
        if not piece:
            return content.getvalue()
        if content.tell() + len(piece) > most_bytes:
            raise Refusal(413, f"unpacked, the body has more than {most_bytes >> 20} MB (serve.max_body_mb)")
        content.write(piece)


def chosen(accepted: str, size: int) -> str:
    """How an answer of that size is packed for a client with this Accept-Encoding; empty: not at all."""
    if not accepted or size < LEAST_BYTES:
        return ""
    weights = {}
    for entry in accepted.lower().split(","):
        name, _, rest = entry.partition(";")
        weights[name.strip()] = _weight(rest)
    return next((name for name in ("gzip", "deflate") if weights.get(name, weights.get("*", 0.0)) > 0.0), "")


def _weight(rest: str) -> float:
    key, _, value = rest.strip().partition("=")
    if key != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def pack(content: bytes, encoding: str) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _WINDOWS[encoding])
    return packer.compress(content) + packer.flush()
