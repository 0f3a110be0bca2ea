"""Sparkplug B payloads as values: a list of metrics with names or aliases, types, times and properties, and back.

Data sets, templates and arrays are not written; when they come in, they are kept as bytes. Peers differ in two places
and both forms are read: negative Int8 and Int16 come sign-extended to 32 bits (as Tahu has it, written here too) or cut
to their width, and UInt32 comes as `int_value` (as the specification has it, written here too) or as `long_value`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from edge_runtime.core.errors import ProtocolError
from edge_runtime.sync.sparkplug.schema import PayloadMessage, parse


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
_BLOBS = {DataType.BYTES, DataType.FILE}
_FIELDS = {
    **dict.fromkeys(_BITS, "int_value"),
    **dict.fromkeys(_LONG, "long_value"),
    DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    **dict.fromkeys(_TEXTS, "string_value"),
    **dict.fromkeys(_BLOBS, "bytes_value"),
}

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
    out = PayloadMessage(timestamp=payload.timestamp_ms, seq=payload.seq)
    for metric in payload.metrics:
        _put_metric(out.metrics.add(), metric, is_birth)
    return bytes(out.SerializeToString())


def decode(data: bytes) -> Payload:
    """Raises ProtocolError for what is not a Sparkplug B payload. Fields that nobody knows are skipped."""
    found = parse(data)
    return Payload(tuple(map(_metric, found.metrics)), _given(found, "timestamp"), _given(found, "seq"))


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
    fits = {DataType.BOOLEAN: bool, **dict.fromkeys(_BLOBS, bytes), **dict.fromkeys(_TEXTS, str)}
    if kind in fits and isinstance(value, fits[kind]):
        return value
    raise ProtocolError(f"{type(value).__name__} does not fit a metric of type {kind.name}")


# -- writing -----------------------------------------------------------------------------------------------------------


def _put_metric(out: Any, metric: Metric, is_birth: bool) -> None:
    for name, said in (("name", metric.name), ("alias", metric.alias), ("timestamp", metric.timestamp_ms)):
        if said is not None:
            setattr(out, name, said)
    if metric.datatype is not None and is_birth:
        out.datatype = metric.datatype
    if metric.is_historical:
        out.is_historical = True
    if metric.is_transient:
        out.is_transient = True
    for key, given in metric.properties.items():
        out.properties.keys.append(key)
        _put_value(out.properties.values.add(type=given.datatype), given.value, given.datatype)
    if metric.value is not None and metric.datatype is None:
        raise ValueError(f"no datatype for metric {metric.name or metric.alias}")
    _put_value(out, metric.value, metric.datatype or 0)


def _put_value(out: Any, value: Value | None, datatype: int) -> None:
    """out: a metric, or a property, which holds no bytes."""
    if value is None:
        out.is_null = True
        return
    kind = DataType(datatype)
    name = _FIELDS[kind]
    if name not in out.DESCRIPTOR.fields_by_name:
        raise ValueError(f"{value!r} is not a {kind.name} of a property")
    setattr(out, name, _fitting(value, kind))


def _fitting(value: Value, kind: DataType) -> Value:
    """As it is written. Raises ValueError."""
    if kind in _BITS and isinstance(value, int):
        return _to_unsigned(int(value), kind)
    if kind in (DataType.FLOAT, DataType.DOUBLE) and isinstance(value, int | float):
        return _to_real(float(value), kind)
    if kind is DataType.BOOLEAN and isinstance(value, bool):
        return value
    if kind in (_TEXTS if isinstance(value, str) else _BLOBS if isinstance(value, bytes) else ()):
        return value
    raise ValueError(f"{value!r} is not a {kind.name}")


def _to_real(value: float, kind: DataType) -> float:
    if kind is DataType.FLOAT:
        try:
            struct.pack("<f", value)  # the library would make it infinite
        except OverflowError as err:
            raise ValueError(f"{value!r} does not fit a FLOAT") from err
    return value


def _to_unsigned(value: int, kind: DataType) -> int:
    if value not in INTEGERS[kind]:
        raise ValueError(f"{value} does not fit {kind.name}")
    return value & ((1 << max(_BITS[kind], 32)) - 1)


# -- reading -----------------------------------------------------------------------------------------------------------


def _metric(found: Any) -> Metric:
    return Metric(
        _text(found.name) if found.HasField("name") else None,
        _value(found, found.datatype),
        _given(found, "datatype"),
        _given(found, "alias"),
        _given(found, "timestamp"),
        found.is_historical,
        found.is_transient,
        _properties(found.properties),
    )


def _properties(found: Any) -> Mapping[str, Property]:
    if len(found.keys) != len(found.values):
        raise ProtocolError(f"property set with {len(found.keys)} keys and {len(found.values)} values")
    values = (Property(given.type, _value(given, given.type)) for given in found.values)
    return MappingProxyType(dict(zip(map(_text, found.keys), values, strict=True)))


def _value(found: Any, datatype: int) -> Value | None:
    """Of a metric or a property; the raw one where no datatype came with it."""
    name = found.WhichOneof("value")
    if name is None or found.is_null:
        return None
    value = getattr(found, name)
    return as_type(_text(value) if name == "string_value" else value, datatype)


def _given(found: Any, name: str) -> int | None:
    return int(getattr(found, name)) if found.HasField(name) else None


def _text(found: str | bytes) -> str:
    """The library hands out bytes where they are no UTF-8."""
    if isinstance(found, bytes):
        raise ProtocolError(f"text in a Sparkplug payload is not UTF-8: {found[:40]!r}")
    return found


def _from_unsigned(value: int, kind: DataType) -> int:
    """Two's complement of the datatype's width, whatever width the sender extended it to."""
    bits = _BITS[kind]
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind in _SIGNED and value >> (bits - 1) else value
