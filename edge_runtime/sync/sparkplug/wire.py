"""Protocol Buffers on the wire: tags, varints, fixed words, length-prefixed bytes. No schema here.

Written by hand (https://protobuf.dev/programming-guides/encoding): Sparkplug needs five messages of it, the protobuf
package is 1 MB, and its generated code fails to import across major versions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from edge_runtime.core.errors import ProtocolError

MAX_VARINT_BYTES = 10  # 64 bits in groups of 7
_U64 = (1 << 64) - 1


class WireType(IntEnum):
    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


Field = tuple[int, WireType, int | bytes]  # number, type, value: int of a varint, else the raw bytes


def varint(value: int) -> bytes:
    """0 <= value < 2**64 in base 128, least significant group first."""
    if not 0 <= value <= _U64:
        raise ValueError(f"{value} is not an unsigned 64-bit number")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where it ends. Raises ProtocolError when cut off or longer than 64 bits."""
    value = 0
    for n in range(MAX_VARINT_BYTES):
        if at + n >= len(data):
            raise ProtocolError(f"protobuf number is cut off at byte {len(data)}")
        byte = data[at + n]
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return value & _U64, at + n + 1
    raise ProtocolError(f"protobuf number at byte {at} is longer than 64 bits")


def put_varint(number: int, value: int) -> bytes:
    return varint(number << 3 | WireType.VARINT) + varint(value)


def put_bytes(number: int, value: bytes) -> bytes:
    return varint(number << 3 | WireType.BYTES) + varint(len(value)) + value


def put_float(number: int, value: float) -> bytes:
    return varint(number << 3 | WireType.FIXED32) + struct.pack("<f", value)


def put_double(number: int, value: float) -> bytes:
    return varint(number << 3 | WireType.FIXED64) + struct.pack("<d", value)


def fields(data: bytes) -> Iterator[Field]:
    """All fields of one message in order, known or not. Raises ProtocolError on the first byte that cannot be right."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ProtocolError("protobuf field number 0")
        if kind == WireType.VARINT:
            value, at = read_varint(data, at)
            yield number, WireType.VARINT, value
            continue
        if kind == WireType.BYTES:
            size, at = read_varint(data, at)
        elif kind in (WireType.FIXED32, WireType.FIXED64):
            size = 4 if kind == WireType.FIXED32 else 8
        else:
            raise ProtocolError(f"protobuf wire type {kind} of field {number} is not in use")
        if at + size > len(data):
            raise ProtocolError(f"protobuf field {number} wants {size} bytes, {len(data) - at} are left")
        yield number, WireType(kind), data[at : at + size]
        at += size
