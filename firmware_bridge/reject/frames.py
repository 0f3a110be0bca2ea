"""Frames on the wire: COBS, CRC-16/CCITT, zero delimiter. Bytes in, payloads out; no I/O.

A frame is `COBS(payload + crc) 00`. COBS is Cheshire and Baker, "Consistent Overhead Byte Stuffing" (1999): one byte
more for up to 254, and zero is never inside, so that a receiver is back in step after the next zero. The CRC is
CRC-16/IBM-3740 ("CCITT-FALSE": polynomial 1021h, start FFFFh, check value 29B1h), little-endian behind the payload; at
these lengths it finds every error of up to three bits.
"""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass

MAX_PAYLOAD = 32  # a controller with 2 kB of RAM holds a frame per direction
CRC_BYTES = 2
MAX_BODY = 1 + MAX_PAYLOAD + CRC_BYTES  # between two zeros: one COBS code byte, payload, CRC
DELIMITER = b"\0"


def crc16(data: bytes) -> int:
    """CRC-16/IBM-3740 of `data`; crc16(b"123456789") == 0x29B1."""
    return crc_hqx(data, 0xFFFF)


def cobs_encode(data: bytes) -> bytes:
    """`data` without zeros, one byte longer. Up to 254 bytes, more than frames here ever have."""
    return b"".join(bytes((len(run) + 1,)) + run for run in data.split(b"\0"))


def cobs_decode(body: bytes) -> bytes | None:
    """The inverse of `cobs_encode`; None when `body` cannot have come from it."""
    out = bytearray()
    at = 0
    while at < len(body):
        end = at + body[at]
        if end == at or end > len(body):
            return None
        out += body[at + 1 : end]
        at = end
        if at < len(body):
            out.append(0)
    return bytes(out)


def encode_frame(payload: bytes) -> bytes:
    """One frame with its delimiter. Raises ValueError on an empty or too long payload: a mistake of the caller."""
    if not 1 <= len(payload) <= MAX_PAYLOAD:
        raise ValueError(f"a payload has 1 to {MAX_PAYLOAD} bytes, not {len(payload)}")
    return cobs_encode(payload + crc16(payload).to_bytes(CRC_BYTES, "little")) + DELIMITER


@dataclass(slots=True)
class WireCounts:
    """What came in, for the page and for who looks for a bad cable."""

    frames: int = 0
    bad_crc: int = 0
    malformed: int = 0  # no COBS, or too short for a payload and its CRC
    oversize: int = 0  # more bytes without a zero than any frame has: wrong baud rate, or not our protocol


class Deframer:
    """Cuts a byte stream into payloads. What is damaged is counted and dropped; it never raises."""

    def __init__(self) -> None:
        self.counts = WireCounts()
        self._body = bytearray()
        self._is_skipping = False  # inside an oversize frame, until its zero

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by `data`, in order."""
        payloads = []
        *ended, rest = data.split(DELIMITER)
        for piece in ended:
            self._extend(piece)
            payload = self._finish()
            if payload is not None:
                payloads.append(payload)
        self._extend(rest)
        return payloads

    def reset(self) -> None:
        """Forget a frame begun, as after opening the port anew. Counters stay."""
        self._body.clear()
        self._is_skipping = False

    def _extend(self, piece: bytes) -> None:
        if self._is_skipping:
            return
        if len(self._body) + len(piece) > MAX_BODY:
            self._is_skipping = True
            self._body.clear()
            self.counts.oversize += 1
            return
        self._body += piece

    def _finish(self) -> bytes | None:
        body = bytes(self._body)
        was_skipping = self._is_skipping
        self.reset()
        if was_skipping or not body:  # two zeros in a row are no error: a sender may open with one
            return None
        data = cobs_decode(body)
        if data is None or len(data) <= CRC_BYTES:
            self.counts.malformed += 1
            return None
        payload = data[:-CRC_BYTES]
        if crc16(payload) != int.from_bytes(data[-CRC_BYTES:], "little"):
            self.counts.bad_crc += 1
            return None
        self.counts.frames += 1
        return payload
