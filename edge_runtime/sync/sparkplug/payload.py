"""Sparkplug B payloads as values: a list of metrics with names or aliases, types, times and properties, and back.

Field numbers and datatypes are those of the published schema (package org.eclipse.tahu.protobuf). Data sets,
templates and arrays are not written; when they come in, they are kept as bytes. Peers differ in two places and both
forms are read: negative Int8 and Int16 come sign-extended to 32 bits (as Tahu has it, written here too) or cut to
their width, and UInt32 comes as `int_value` (as the specification has it, written here too) or as `long_value`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from edge_runtime.core.errors import ProtocolError
from edge_runtime.sync.sparkplug.wire import Field, WireType, fields, put_bytes, put_double, put_float, put_varint


class DataType(IntEnum):
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13  # milliseconds since 1970 UTC
    TEXT = 14
    UUID = 15
    BYTES = 17
    FILE = 18


Value = bool | int | float | str | bytes

_BITS = {
    DataType.INT8: 8,
    DataType.INT16: 16,
    DataType.INT32: 32,
    DataType.INT64: 64,
    DataType.UINT8: 8,
    DataType.UINT16: 16,
    DataType.UINT32: 32,
    DataType.UINT64: 64,
    DataType.DATETIME: 64,
}
_SIGNED = {DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64}
INTEGERS = {
    kind: range(-(1 << bits - 1), 1 << bits - 1) if kind in _SIGNED else range(1 << bits)
    for kind, bits in _BITS.items()
}
_LONG = {DataType.INT64, DataType.UINT64, DataType.DATETIME}
_TEXTS = {DataType.STRING, DataType.TEXT, DataType.UUID}

# First field of the value in a Metric and in a PropertyValue; then both go on: int long float double boolean string.
_METRIC_VALUE, _PROPERTY_VALUE = 10, 3
_INT, _LONG_AT, _FLOAT, _DOUBLE, _BOOL, _STRING, _BYTES = range(7)
_OTHER = (7, 8, 9)  # data set, template, extension: told from "no value", not taken apart

QUALITY = "Quality"  # the one property name that the specification reserves
GOOD, BAD, STALE = 192, 0, 500


@dataclass(frozen=True, slots=True)
class Property:
    """What a metric says beside its value. `value` None is written as is_null."""

    datatype: int
    value: Value | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One value. Name, datatype and alias in births; in data the alias alone, and the birth tells the rest.

    A metric without datatype that comes in keeps the raw number (unsigned) or text; `as_type` makes it what the
    birth said. `value` None is is_null.
    """

    name: str | None = None
    value: Value | None = None
    datatype: int | None = None
    alias: int | None = None
    timestamp_ms: int | None = None
    is_historical: bool = False
    is_transient: bool = False
    properties: Mapping[str, Property] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Payload:
    metrics: Sequence[Metric] = ()
    timestamp_ms: int | None = None
    seq: int | None = None


def encode(payload: Payload, *, is_birth: bool = True) -> bytes:
    """The payload as bytes. Data messages leave the datatype out: the birth told it.

    Raises ValueError when a metric has a value but no datatype, or one that its value does not fit.
    """
    out = bytearray()
    if payload.timestamp_ms is not None:
        out += put_varint(1, payload.timestamp_ms)
    for metric in payload.metrics:
        out += put_bytes(2, _encode_metric(metric, is_birth))
    if payload.seq is not None:
        out += put_varint(3, payload.seq)
    return bytes(out)


def decode(data: bytes) -> Payload:
    """Raises ProtocolError for what is not a Sparkplug B payload. Fields that nobody knows are skipped."""
    metrics: list[Metric] = []
    timestamp_ms = seq = None
    for found in fields(data):
        number = found[0]
        if number == 1:
            timestamp_ms = _number(found)
        elif number == 2:
            metrics.append(_decode_metric(_bytes(found)))
        elif number == 3:
            seq = _number(found)
    return Payload(tuple(metrics), timestamp_ms, seq)


def as_type(value: Value | None, datatype: int) -> Value | None:
    """A raw value that came without its datatype, as what the birth declared. Raises ProtocolError if it cannot be."""
    if value is None:
        return None
    try:
        kind = DataType(datatype)
    except ValueError:
        return value
    if kind in _BITS and isinstance(value, int) and not isinstance(value, bool):
        return _from_unsigned(value, kind)
    if kind in (DataType.FLOAT, DataType.DOUBLE) and isinstance(value, float):
        return value
    fits = {DataType.BOOLEAN: bool, DataType.BYTES: bytes, DataType.FILE: bytes} | dict.fromkeys(_TEXTS, str)
    if kind in fits and isinstance(value, fits[kind]):
        return value
    raise ProtocolError(f"{type(value).__name__} does not fit a metric of type {kind.name}")


def _encode_metric(metric: Metric, is_birth: bool) -> bytes:
    out = bytearray()
    if metric.name is not None:
        out += put_bytes(1, metric.name.encode())
    if metric.alias is not None:
        out += put_varint(2, metric.alias)
    if metric.timestamp_ms is not None:
        out += put_varint(3, metric.timestamp_ms)
    if metric.datatype is not None and is_birth:
        out += put_varint(4, metric.datatype)
    if metric.is_historical:
        out += put_varint(5, 1)
    if metric.is_transient:
        out += put_varint(6, 1)
    if metric.properties:
        out += put_bytes(9, _encode_properties(metric.properties))
    if metric.value is None:
        return bytes(out + put_varint(7, 1))
    if metric.datatype is None:
        raise ValueError(f"no datatype for metric {metric.name or metric.alias}")
    return bytes(out + _encode_value(_METRIC_VALUE, metric.value, DataType(metric.datatype)))


def _encode_properties(properties: Mapping[str, Property]) -> bytes:
    out = bytearray()
    for key in properties:
        out += put_bytes(1, key.encode())
    for given in properties.values():
        kind = DataType(given.datatype)
        value = put_varint(2, 1) if given.value is None else _encode_value(_PROPERTY_VALUE, given.value, kind)
        out += put_bytes(2, put_varint(1, kind) + value)
    return bytes(out)


def _encode_value(base: int, value: Value, kind: DataType) -> bytes:
    if kind in _BITS and isinstance(value, int):
        return put_varint(base + (_LONG_AT if kind in _LONG else _INT), _to_unsigned(int(value), kind))
    if kind is DataType.BOOLEAN and isinstance(value, bool):
        return put_varint(base + _BOOL, value)
    if kind in (DataType.FLOAT, DataType.DOUBLE) and isinstance(value, int | float):
        return _encode_real(base, float(value), kind)
    if kind in _TEXTS and isinstance(value, str):
        return put_bytes(base + _STRING, value.encode())
    if kind in (DataType.BYTES, DataType.FILE) and isinstance(value, bytes) and base == _METRIC_VALUE:
        return put_bytes(base + _BYTES, value)
    raise ValueError(f"{value!r} is not a {kind.name}")


def _encode_real(base: int, value: float, kind: DataType) -> bytes:
    if kind is DataType.DOUBLE:
        return put_double(base + _DOUBLE, value)
    try:
        return put_float(base + _FLOAT, value)
    except OverflowError as err:
        raise ValueError(f"{value!r} does not fit a FLOAT") from err


def _to_unsigned(value: int, kind: DataType) -> int:
    if value not in INTEGERS[kind]:
        raise ValueError(f"{value} does not fit {kind.name}")
    return value & ((1 << max(_BITS[kind], 32)) - 1)


def _from_unsigned(value: int, kind: DataType) -> int:
    """Two's complement of the datatype's width, whatever width the sender extended it to."""
    bits = _BITS[kind]
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind in _SIGNED and value >> (bits - 1) else value


def _decode_metric(data: bytes) -> Metric:
    name = alias = timestamp_ms = datatype = value = None
    is_historical = is_transient = is_null = False
    properties: Mapping[str, Property] = MappingProxyType({})
    for found in fields(data):
        match found[0]:
            case 1:
                name = _text(found)
            case 2:
                alias = _number(found)
            case 3:
                timestamp_ms = _number(found)
            case 4:
                datatype = _number(found)
            case 5:
                is_historical = bool(_number(found))
            case 6:
                is_transient = bool(_number(found))
            case 7:
                is_null = bool(_number(found))
            case 9:
                properties = _decode_properties(_bytes(found))
            case number if number >= _METRIC_VALUE:
                value = _decode_value(_METRIC_VALUE, found, value)
    if is_null:
        value = None
    if datatype is not None:
        value = as_type(value, datatype)
    return Metric(name, value, datatype, alias, timestamp_ms, is_historical, is_transient, properties)


def _decode_properties(data: bytes) -> Mapping[str, Property]:
    keys: list[str] = []
    values: list[Property] = []
    for found in fields(data):
        if found[0] == 1:
            keys.append(_text(found))
        elif found[0] == 2:
            values.append(_decode_property(_bytes(found)))
    if len(keys) != len(values):
        raise ProtocolError(f"property set with {len(keys)} keys and {len(values)} values")
    return MappingProxyType(dict(zip(keys, values, strict=True)))


def _decode_property(data: bytes) -> Property:
    datatype, value, is_null = 0, None, False
    for found in fields(data):
        if found[0] == 1:
            datatype = _number(found)
        elif found[0] == 2:
            is_null = bool(_number(found))
        else:
            value = _decode_value(_PROPERTY_VALUE, found, value)
    return Property(datatype, None if is_null else as_type(value, datatype))


def _decode_value(base: int, found: Field, before: Value | None) -> Value | None:
    """The value of the oneof; a field outside it leaves what was there."""
    at = found[0] - base
    if at in (_INT, _LONG_AT):
        return _number(found)
    if at == _BOOL:
        return bool(_number(found))
    if at == _FLOAT:
        return _real(found, WireType.FIXED32, "<f")
    if at == _DOUBLE:
        return _real(found, WireType.FIXED64, "<d")
    if at == _STRING:
        return _text(found)
    if (at == _BYTES or at in _OTHER) and base == _METRIC_VALUE:
        return _bytes(found)
    return before


def _number(found: Field) -> int:
    if not isinstance(found[2], int):
        raise ProtocolError(f"protobuf field {found[0]} is not a number")
    return found[2]


def _bytes(found: Field) -> bytes:
    if found[1] is not WireType.BYTES or not isinstance(found[2], bytes):
        raise ProtocolError(f"protobuf field {found[0]} is not a string or message")
    return found[2]


def _text(found: Field) -> str:
    try:
        return _bytes(found).decode()
    except UnicodeDecodeError as err:
        raise ProtocolError(f"protobuf field {found[0]} is not UTF-8: {err}") from err


def _real(found: Field, wire: WireType, layout: str) -> float:
    if found[1] is not wire or not isinstance(found[2], bytes):
        raise ProtocolError(f"protobuf field {found[0]} is not a floating point number")
    return float(struct.unpack(layout, found[2])[0])
