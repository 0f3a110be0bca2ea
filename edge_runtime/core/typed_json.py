"""Frozen dataclasses as JSON documents and back: one declaration says what is written and what is understood.

    to_json(document)             -> a dict of JSON types
    from_json(Document, told)     -> the document; ProtocolError names the key that is missing or is something else

Boxes of different versions read each other. What only a newer one tells is left away, or kept in the field `others`
where the type has one. What an older one does not tell takes the field's default; where there is none the key is
needed. A field whose default is None is not written while it is None.

`others` is written flat, beside the fields: counters that come and go stand in a report without a level of their own.
Types are read from the annotations at the first use: str, int, float, bool, StrEnum, other such dataclasses,
`X | None`, `Mapping[str, X]`, `tuple[X, ...]`, Any. Not pydantic: `status` has 0.15 s of processor time in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edge_runtime.core.errors import ProtocolError

OTHERS = "others"  # the field that takes what no field names

Document = TypeVar("Document")
Read = Callable[[Any, str], Any]  # a JSON value and where it stands -> the value of a field


def to_json(document: Any) -> dict[str, Any]:
    """JSON types only. document: one of the dataclasses that the module is about."""
    told = dict(getattr(document, OTHERS, {}))
    kind: Any = type(document)
    for name, is_optional in _writers(kind):
        value = getattr(document, name)
        if value is not None or not is_optional:
            told[name] = _written(value)
    return told


def from_json(kind: type[Document], told: object, where: str = "") -> Document:
    """where: what the document is called in an error, such as `status`. Raises ProtocolError."""
    if not isinstance(told, Mapping):
        raise ProtocolError(f"{where or kind.__name__} is {_shown(told)}, not an object with names")
    values = {}
    shape: Any = kind
    for name, read, is_needed in _readers(shape):
        if name in told:
            values[name] = read(told[name], f"{where}.{name}" if where else name)
        elif is_needed:
            raise ProtocolError(f"{where or kind.__name__} has no '{name}': it was written by another version")
    if _has_others(shape):
        values[OTHERS] = {name: value for name, value in told.items() if name not in values}
    return kind(**values)


def _written(value: Any) -> Any:
    if isinstance(value, str | int | float | NoneType):
        return value
    if isinstance(value, Mapping):
        return {name: _written(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_written(one) for one in value]
    return to_json(value)


@cache
def _writers(kind: Any) -> tuple[tuple[str, bool], ...]:
    """Name, and whether it is left out while it is None."""
    return tuple((one.name, one.default is None) for one in fields(kind) if one.name != OTHERS)


@cache
def _readers(kind: Any) -> tuple[tuple[str, Read, bool], ...]:
    """Name, how it is read, and whether it must be there."""
    hints = get_type_hints(kind)
    return tuple(
        (one.name, _reader(hints[one.name]), one.default is MISSING and one.default_factory is MISSING)
        for one in fields(kind)
        if one.name != OTHERS
    )


@cache
def _has_others(kind: Any) -> bool:
    return any(one.name == OTHERS for one in fields(kind))


def _reader(hint: Any) -> Read:
    """How values of one annotation are read. Raises TypeError for an annotation that no document may have."""
    if hint is Any:
        return lambda value, _: value
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union) and len(inner) == 2 and NoneType in inner:
        return _or_none(_reader(next(one for one in inner if one is not NoneType)))
    if origin is Mapping:
        return _by_name(_reader(inner[1]))
    if origin is tuple and inner[1:] == (Ellipsis,):
        return _in_order(_reader(inner[0]))
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value, where: from_json(hint, value, where)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _one_of(hint)
    raise TypeError(f"{hint!r} has no form in JSON here; see {__name__}")


def _or_none(read: Read) -> Read:
    return lambda value, where: None if value is None else read(value, where)


def _by_name(read: Read) -> Read:
    def read_all(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(value, where, "an object with names")
        return {name: read(one, f"{where}.{name}") for name, one in value.items()}

    return read_all


def _in_order(read: Read) -> Read:
    def read_all(value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            raise _wrong(value, where, "a list")
        return tuple(read(one, f"{where}[{at}]") for at, one in enumerate(value))

    return read_all


def _one_of(words: type[StrEnum]) -> Read:
    def read(value: Any, where: str) -> Any:
        try:
            return words(value)
        except ValueError:
            raise _wrong(value, where, f"one of {', '.join(words)}") from None

    return read


def _exactly(kinds: tuple[type, ...], words: str, make: Callable[[Any], Any]) -> Read:
    def read(value: Any, where: str) -> Any:
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            raise _wrong(value, where, words)
        try:
            return make(value)
        except OverflowError:  # JSON knows no largest number
            raise _wrong(value, where, words) from None

    return read


_PLAIN: Mapping[Any, Read] = {
    str: _exactly((str,), "text", str),
    int: _exactly((int,), "a whole number", int),
    float: _exactly((int, float), "a number", float),
    bool: _exactly((bool,), "true or false", bool),
}


def _wrong(value: Any, where: str, wanted: str) -> ProtocolError:
    return ProtocolError(f"{where} is {_shown(value)}, not {wanted}: it was written by another version")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
