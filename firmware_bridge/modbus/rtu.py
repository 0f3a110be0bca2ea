"""Modbus RTU frames: CRC, lengths, timing, requests and replies. Bytes in, values out; no I/O and no clock.

After "MODBUS over Serial Line, Specification and Implementation Guide" 1.02 and "MODBUS Application Protocol" 1.1b3
(modbus.org). Only what a register map needs: read holding and input registers, write one, write many.

A frame is `unit function data crc`, the CRC low byte first. RTU has no delimiter and no transaction id. Frames are cut
by their length, which function and byte count tell, and by silence.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

BROADCAST = 0
MAX_FRAME = 256
MAX_READ = 125  # registers in one request; 250 bytes of data fit a frame
MAX_WRITE = 123
MIN_FRAME = 4  # unit, function, CRC
EXCEPTION_BIT = 0x80
PARITIES = ("none", "even", "odd")
FAST_BAUD = 19_200  # above it the silence between frames is fixed, or a UART interrupt per character would not keep up
FAST_SILENCE_NS = 1_750_000
SILENT_CHARS = 3.5
MS = 1_000_000


class Function(IntEnum):
    READ_HOLDING = 3
    READ_INPUT = 4
    WRITE_ONE = 6
    WRITE_MANY = 16


READS = (Function.READ_HOLDING, Function.READ_INPUT)


class ExceptionCode(IntEnum):
    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4
    BUSY = 6


EXCEPTION_TEXTS = {
    ExceptionCode.ILLEGAL_FUNCTION: "illegal function",
    ExceptionCode.ILLEGAL_ADDRESS: "illegal data address",
    ExceptionCode.ILLEGAL_VALUE: "illegal data value",
    ExceptionCode.DEVICE_FAILURE: "device failure",
    ExceptionCode.BUSY: "device busy",
}


def exception_text(code: int) -> str:
    return f"exception {code}" + (f" ({EXCEPTION_TEXTS[ExceptionCode(code)]})" if code in EXCEPTION_TEXTS else "")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc16(data: bytes | bytearray) -> int:
    """CRC-16/MODBUS of `data`; crc16(b"123456789") == 0x4B37. Over a frame with its CRC it is 0."""
    crc = 0xFFFF
    table = _CRC_TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


def with_crc(body: bytes) -> bytes:
    return body + crc16(body).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Line:
    """How bytes travel. parity: none, even, odd. Without parity two stop bits are the standard, one is the custom."""

    baud: int = 115_200
    parity: str = "none"
    stop_bits: int = 1

    def __post_init__(self) -> None:
        if self.parity not in PARITIES:
            raise ValueError(f"parity {self.parity!r}: one of {', '.join(PARITIES)}")
        if self.stop_bits not in (1, 2):
            raise ValueError(f"stop_bits {self.stop_bits}: 1 or 2")
        if self.baud <= 0:
            raise ValueError(f"baud {self.baud}: a positive number")

    @property
    def char_ns(self) -> int:
        bits = 1 + 8 + (self.parity != "none") + self.stop_bits
        return bits * 1_000_000_000 // self.baud

    @property
    def silence_ns(self) -> int:
        """Between two frames, at least."""
        return FAST_SILENCE_NS if self.baud > FAST_BAUD else int(SILENT_CHARS * self.char_ns)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `values` are what is written; empty for reads."""

    unit: int
    function: int
    address: int
    count: int
    values: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Raises ValueError on what no frame can carry: a mistake of the caller."""
        if self.function in READS:
            if not 1 <= self.count <= MAX_READ:
                raise ValueError(f"1 to {MAX_READ} registers are read, not {self.count}")
            return with_crc(struct.pack(">BBHH", self.unit, self.function, self.address, self.count))
        if self.function == Function.WRITE_ONE:
            return with_crc(struct.pack(">BBHH", self.unit, self.function, self.address, self.values[0]))
        if not 1 <= self.count <= MAX_WRITE or len(self.values) != self.count:
            raise ValueError(f"1 to {MAX_WRITE} registers are written, not {len(self.values)} of {self.count}")
        head = struct.pack(">BBHHB", self.unit, self.function, self.address, self.count, 2 * self.count)
        return with_crc(head + struct.pack(f">{self.count}H", *self.values))

    def reply_head(self) -> bytes:
        """How a good reply begins, as far as it is known before."""
        if self.function in READS:
            return bytes((self.unit, self.function, 2 * self.count))
        second = self.values[0] if self.function == Function.WRITE_ONE else self.count
        return struct.pack(">BBHH", self.unit, self.function, self.address, second)

    @property
    def reply_size(self) -> int:
        return 5 + 2 * self.count if self.function in READS else 8


def read_request(unit: int, address: int, count: int) -> Request:
    return Request(unit, Function.READ_HOLDING, address, count)


def write_request(unit: int, address: int, values: Sequence[int]) -> Request:
    return Request(unit, Function.WRITE_MANY, address, len(values), tuple(values))


_FIXED = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 7: 4, 8: 8, 11: 4, 12: 4, 17: 4, 22: 10, 24: 6}  # whole requests
_COUNTED = {15: (9, 6), 16: (9, 6), 20: (5, 2), 21: (5, 2), 23: (13, 10)}  # bytes without data, where their count is


def request_size(data: bytes | bytearray) -> int | None:
    """Length of the request that `data` begins with. None: more bytes are needed to tell; 0: only silence tells."""
    if len(data) < 2:
        return None
    if data[1] in _COUNTED:
        head, at = _COUNTED[data[1]]
        return None if len(data) <= at else head + data[at]
    return _FIXED.get(data[1], 0)


def reply_size(data: bytes | bytearray) -> int | None:
    """Length of the reply that `data` begins with, as `request_size`."""
    if len(data) < 2:
        return None
    function = data[1]
    if function & EXCEPTION_BIT:
        return 5
    if 1 <= function <= 4:
        return None if len(data) < 3 else 5 + data[2]
    return 8 if function in (5, 6, 15, 16) else 0


def decode_registers(frame: bytes | bytearray) -> tuple[int, ...]:
    """Values of a good reply to a read."""
    return struct.unpack(f">{frame[2] // 2}H", frame[3:-2])


def parse_request(frame: bytes | bytearray) -> Request | ExceptionCode:
    """A whole request with a good CRC, or the exception that it deserves."""
    unit, function = frame[0], frame[1]
    if function not in (*READS, Function.WRITE_ONE, Function.WRITE_MANY):
        return ExceptionCode.ILLEGAL_FUNCTION
    if len(frame) < 8:
        return ExceptionCode.ILLEGAL_VALUE
    address, second = struct.unpack_from(">HH", frame, 2)
    if function == Function.WRITE_ONE:
        return Request(unit, function, address, 1, (second,)) if len(frame) == 8 else ExceptionCode.ILLEGAL_VALUE
    if function in READS:
        is_good = len(frame) == 8 and 1 <= second <= MAX_READ
        return Request(unit, function, address, second) if is_good else ExceptionCode.ILLEGAL_VALUE
    is_good = 1 <= second <= MAX_WRITE and frame[6] == 2 * second and len(frame) == 9 + frame[6]
    if not is_good:
        return ExceptionCode.ILLEGAL_VALUE
    return Request(unit, function, address, second, struct.unpack_from(f">{second}H", frame, 7))


def read_reply(request: Request, values: Sequence[int]) -> bytes:
    head = bytes((request.unit, request.function, 2 * len(values)))
    return with_crc(head + struct.pack(f">{len(values)}H", *values))


def write_reply(request: Request) -> bytes:
    return with_crc(request.reply_head())


def exception_reply(unit: int, function: int, code: int) -> bytes:
    return with_crc(bytes((unit, function | EXCEPTION_BIT, code)))
