"""Sparkplug payloads field by field, as they are on the wire: what is missing, doubled or wrong stays visible.

A reader of its own, apart from the product's: a fault that writer and reader share would never be seen.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

VALUE_FIELDS = {10: "int", 11: "long", 12: "float", 13: "double", 14: "bool", 15: "string", 16: "bytes"}
DATASET, TEMPLATE = 17, 18
LAST_DATATYPE = 34  # of the enumeration in the schema of 3.0.0


class PayloadError(Exception):
    """Bytes that are no protobuf message of this schema."""


@dataclass(slots=True)
class Properties:
    keys: list[str] = field(default_factory=list)
    types: list[int | None] = field(default_factory=list)
    values: list[object] = field(default_factory=list)


@dataclass(slots=True)
class Metric:
    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    is_historical: bool = False
    is_null: bool = False
    value: object = None
    value_count: int = 0  # of the oneof; more than one is a fault
    kind: int = 0  # field number of the value
    properties: Properties | None = None


@dataclass(slots=True)
class Payload:
    timestamp: int | None = None
    metrics: list[Metric] = field(default_factory=list)
    seq: int | None = None

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


def read(data: bytes) -> Payload:
    """Raises PayloadError."""
    payload = Payload()
    for number, value in _fields(data):
        if number == 1:
            payload.timestamp = _int(value)
        elif number == 2:
            payload.metrics.append(_metric(_raw(value)))
        elif number == 3:
            payload.seq = _int(value)
    return payload


def _metric(data: bytes) -> Metric:
    metric = Metric()
    for number, value in _fields(data):
        if number == 1:
            metric.name = _text(value)
        elif number == 2:
            metric.alias = _int(value)
        elif number == 3:
            metric.timestamp = _int(value)
        elif number == 4:
            metric.datatype = _int(value)
        elif number == 5:
            metric.is_historical = bool(_int(value))
        elif number == 7:
            metric.is_null = bool(_int(value))
        elif number == 9:
            metric.properties = _properties(_raw(value))
        elif 10 <= number <= 19:
            metric.kind, metric.value = number, _value(number, value)
            metric.value_count += 1
    return metric


def _value(number: int, value: int | bytes) -> object:
    kind = VALUE_FIELDS.get(number)
    if kind in ("int", "long"):
        return _int(value)
    if kind == "bool":
        return bool(_int(value))
    if kind in ("float", "double"):
        layout = "<f" if kind == "float" else "<d"
        raw = _raw(value)
        if len(raw) != struct.calcsize(layout):
            raise PayloadError(f"a {kind} of {len(raw)} bytes")
        return struct.unpack(layout, raw)[0]
    return _text(value) if kind == "string" else _raw(value)


def _properties(data: bytes) -> Properties:
    found = Properties()
    for number, value in _fields(data):
        if number == 1:
            found.keys.append(_text(value))
        elif number == 2:
            inner = dict(_fields(_raw(value)))
            found.types.append(_int(inner[1]) if 1 in inner else None)
            found.values.append(next((inner[n] for n in range(3, 12) if n in inner), None))
    return found


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    at, found = 0, []
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        value: int | bytes
        if wire == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                size, at = _varint(data, at)
            if size is None or at + size > len(data):
                raise PayloadError(f"field {key >> 3} at byte {at} cannot be read")
            value, at = data[at : at + size], at + size
        found.append((key >> 3, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
    raise PayloadError(f"number at byte {at} cannot be read")


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise PayloadError("bytes where a number belongs")
    return value


def _raw(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise PayloadError("a number where bytes belong")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _raw(value).decode()
    except UnicodeDecodeError as err:
        raise PayloadError("text that is not UTF-8") from err


def rebirth_request(now_ms: int) -> bytes:
    """What a host publishes on NCMD to have everything born again."""
    name = b"Node Control/Rebirth"
    metric = b"\x0a" + bytes([len(name)]) + name + b"\x18" + _number(now_ms) + b"\x20\x0b\x70\x01"
    return b"\x08" + _number(now_ms) + b"\x12" + bytes([len(metric)]) + metric


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
