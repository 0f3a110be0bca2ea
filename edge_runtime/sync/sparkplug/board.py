"""The metrics of one edge node and its devices: what they are called, what they hold, what changed.

A board is one birth certificate's worth of metrics. It reports by exception: a value that did not change, or moved
less than its dead band, is not told again. Aliases are given once for the whole node, in order, so that they are
unique over the node and all its devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edge_runtime.sync.sparkplug.payload import BAD, GOOD, INTEGERS, QUALITY, DataType, Metric, Property, Value

UNIT = "engUnit"  # the property name that Ignition and Tahu read the engineering unit from


@dataclass(frozen=True, slots=True)
class Tag:
    """One metric's definition. Its datatype does not change while the node lives."""

    name: str  # "Counts/Verdict/reject": slashes make folders
    datatype: DataType
    unit: str = ""  # "ms", "MB", "parts/min"; empty where there is none
    deadband: float = 0.0  # a number that moved less than this since it was last told is not told
    is_writable: bool = False  # a host may write it by NCMD or DCMD; anything else is refused
    has_alias: bool = True  # Node Control metrics must go by their name


@dataclass(slots=True)
class _Slot:
    tag: Tag
    alias: int | None
    value: Value | None = None
    told: Value | None = None
    stamp_ms: int = 0


class Board:
    """Values by tag name. Nothing is known at first: every metric is null until it is set."""

    def __init__(self, tags: Sequence[Tag], aliases: Iterator[int]) -> None:
        names = [tag.name.casefold() for tag in tags]
        if len(set(names)) != len(names):
            raise ValueError(f"metric names differ only by case or not at all: {sorted(tag.name for tag in tags)}")
        self._slots = {tag.name: _Slot(tag, next(aliases) if tag.has_alias else None) for tag in tags}
        self._by_alias = {slot.alias: slot for slot in self._slots.values() if slot.alias is not None}
        self.unknown = 0  # values set under names that no birth ever declared

    def find(self, name: str | None, alias: int | None) -> Tag | None:
        """The tag a command means, by name or by alias."""
        slot = self._slots.get(name) if name is not None else self._by_alias.get(alias if alias is not None else -1)
        return slot.tag if slot else None

    def is_writable(self) -> bool:
        return any(slot.tag.is_writable for slot in self._slots.values())

    def set(self, values: Mapping[str, Value | None], stamp_ms: int) -> list[Metric]:
        """Take new values; return those worth telling. A name left out keeps its value."""
        changed = []
        for name, value in values.items():
            slot = self._slots.get(name)
            if slot is None:
                self.unknown += 1
                continue
            slot.value = _fitting(value, slot.tag.datatype)
            if _is_news(slot):
                slot.stamp_ms = stamp_ms
                changed.append(_data(slot))
                slot.told = slot.value
        return changed

    def birth(self, stamp_ms: int) -> list[Metric]:
        """Every metric with name, alias, datatype, value, unit and quality; all count as told."""
        for slot in self._slots.values():
            slot.told, slot.stamp_ms = slot.value, stamp_ms
        return [_birth(slot) for slot in self._slots.values()]


def _is_news(slot: _Slot) -> bool:
    new, old = slot.value, slot.told
    if isinstance(new, int | float) and isinstance(old, int | float) and slot.tag.deadband > 0.0:
        return abs(new - old) >= slot.tag.deadband
    return new != old


def _fitting(value: Value | None, datatype: DataType) -> Value | None:
    """What the datatype can hold; a value of another kind is unknown rather than wrong."""
    if isinstance(value, bool) or value is None:
        return value if datatype is DataType.BOOLEAN else None
    if datatype in (DataType.DOUBLE, DataType.FLOAT) and isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if datatype in INTEGERS:
        return value if isinstance(value, int) and value in INTEGERS[datatype] else None
    if datatype in (DataType.STRING, DataType.TEXT, DataType.UUID):
        return str(value).encode(errors="replace").decode()  # lone surrogates have no UTF-8
    return value if datatype in (DataType.BYTES, DataType.FILE) and isinstance(value, bytes) else None


def _birth(slot: _Slot) -> Metric:
    properties = {QUALITY: _quality(slot.value)}
    if slot.tag.unit:
        properties[UNIT] = Property(DataType.STRING, slot.tag.unit)
    return Metric(
        name=slot.tag.name,
        alias=slot.alias,
        datatype=slot.tag.datatype,
        value=slot.value,
        timestamp_ms=slot.stamp_ms,
        properties=MappingProxyType(properties),
    )


def _data(slot: _Slot) -> Metric:
    """By alias alone where there is one; quality goes with it when it is bad or has just become good again."""
    turned = slot.value is None or slot.told is None
    return Metric(
        name=None if slot.alias is not None else slot.tag.name,
        alias=slot.alias,
        datatype=slot.tag.datatype,
        value=slot.value,
        timestamp_ms=slot.stamp_ms,
        properties=MappingProxyType({QUALITY: _quality(slot.value)} if turned else {}),
    )


def _quality(value: Value | None) -> Property:
    return Property(DataType.INT32, BAD if value is None else GOOD)
