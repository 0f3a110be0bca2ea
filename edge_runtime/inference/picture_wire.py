"""How `run` hands the tensor of a part's picture to `serve`, and what comes back: JSON lines, bytes behind them.

    {"do": "open"}\n                      ->  {"served": {...}, "server": "gpu.example:8000"}\n
    {"id": 7, "within_ms": 120.5, "datatype": "INT8", "shape": [1, 360, 640, 3], "bytes": 691200, "trial": false}\n
                                              + the tensor
                                          ->  {"id": 7, "version": "1", "outputs": [{...}]}\n + the outputs, in order
                                          ->  {"id": 7, "failed": "late", "why": "..."}\n
    {"do": "health"}\n                    ->  {"state": "ok", "detail": "...", ...}\n

No part waits for a `trial`, and it is counted apart. A connection that was opened stays; answers come in any order.
Datatypes, shapes and names are those of the Open Inference Protocol v2. Both processes speak it, so it lives with
neither. Nothing here does I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ProtocolError

SOCKET = "picture.sock"
MOST_BYTES = 16 << 20  # of one tensor, and of all outputs together: 1280 x 1080 x 3 as float32 is 16.6 MB
MOST_IN_FLIGHT = 4  # parts that are asked at once: 150 ms of 25 parts/s
MOST_TENSORS = 16
MOST_DIMENSIONS = 8
MOST_TEXT = 300  # characters of what a server says
_NAME = re.compile(r"[\x21-\x7e]{1,256}")  # printable, no blanks: it goes into journals and onto screens
_DTYPES: Mapping[str, str] = {
    "BOOL": "|b1",
    **{f"{kind}INT{8 * size}": f"<{letter}{size}" for kind, letter in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}  # fmt: skip


class Failure(StrEnum):
    """Why a server gave no answer that can be used."""

    LATE = "late"  # not back in its share of the deadline
    REFUSED = "refused"  # it, or `serve`, says no
    WRONG = "wrong"  # an answer that is none
    UNREACHABLE = "unreachable"  # no connection to it, or to `serve`


@dataclass(frozen=True, slots=True)
class TensorForm:
    """What a model's description says of one tensor. shape: -1 where any size goes."""

    name: str
    datatype: str  # "UINT8"
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(
            size > 0 and wanted in (-1, size) for size, wanted in zip(shape, self.shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {'x'.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its server describes it. takes_binary: raw bytes, else tensors go to it as JSON numbers."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorForm, ...]
    outputs: tuple[TensorForm, ...]
    takes_binary: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The document that `as_served` reads: what the line must know of it."""
        forms = {
            side: [{"name": form.name, "datatype": form.datatype, "shape": list(form.shape)} for form in these]
            for side, these in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        return {"name": self.name, "versions": list(self.versions), **forms}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one tensor. outputs: in the order of the model's description."""

    version: str  # of the model, as the server tells it; empty where it does not
    outputs: tuple[NDArray[Any], ...]


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Raises ProtocolError for what is no number: BYTES, BF16."""
    found = _DTYPES.get(datatype)
    if found is None:
        raise ProtocolError(f"datatype {datatype[:20]!r} holds no numbers that are known here")
    return np.dtype(found)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy dtype. Raises ProtocolError where it has none."""
    for name, code in _DTYPES.items():
        if np.dtype(code) == dtype:
            return name
    raise ProtocolError(f"dtype {dtype} has no name in the protocol")


def as_served(document: Mapping[str, Any]) -> ServedModel:
    """From a model's description (`GET v2/models/NAME`). Raises ProtocolError when it is none."""
    versions = document.get("versions") or []
    if not isinstance(versions, list) or len(versions) > MOST_TENSORS * 8:
        raise ProtocolError("the model's versions are no list")
    return ServedModel(
        as_name(document.get("name"), "the model's name"),
        tuple(as_name(version, "a version") for version in versions),
        _forms(document, "inputs"),
        _forms(document, "outputs"),
    )


def as_name(value: Any, what: str) -> str:
    """A name that may stand in a journal. Raises ProtocolError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ProtocolError(f"{what} is {str(value)[:40]!r}, not up to 256 plain characters")
    return value


def as_shape(value: Any, what: str, least: int = 0) -> tuple[int, ...]:
    """Raises ProtocolError for what is no shape, or one with a size below `least`."""
    if not isinstance(value, list) or len(value) > MOST_DIMENSIONS:
        raise ProtocolError(f"the shape of {what} is {str(value)[:40]}")
    if not all(isinstance(size, int) and not isinstance(size, bool) and least <= size < 2**31 for size in value):
        raise ProtocolError(f"the shape of {what} is {str(value)[:80]}")
    return tuple(value)


def size_of(datatype: str, shape: Sequence[int]) -> int:
    """Bytes of such a tensor. Raises ProtocolError above MOST_BYTES."""
    size = math.prod(shape) * dtype_of(datatype).itemsize
    if size > MOST_BYTES:
        raise ProtocolError(f"a tensor of {size} bytes; {MOST_BYTES} are taken at most")
    return size


def as_array(content: bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Raises ProtocolError when the bytes are not those of such a tensor, or hold what is no number."""
    if len(content) != size_of(datatype, shape):
        raise ProtocolError(f"{len(content)} bytes for {datatype} {'x'.join(map(str, shape))}")
    array = np.frombuffer(content, dtype_of(datatype)).reshape(tuple(shape))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError("an output holds values that are no numbers (NaN or infinite)")
    return array


def as_text(value: Any) -> str:
    """What a server says, fit for a log line and a screen."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)[:MOST_TEXT]).split())


def _forms(document: Mapping[str, Any], side: str) -> tuple[TensorForm, ...]:
    found = document.get(side)
    if not isinstance(found, list) or not 0 < len(found) <= MOST_TENSORS:
        raise ProtocolError(f"the model's {side} are no list of 1 to {MOST_TENSORS} tensors")
    forms = tuple(_form(tensor, side) for tensor in found)
    if len({form.name for form in forms}) < len(forms):
        raise ProtocolError(f"two of the model's {side} have one name")
    return forms


def _form(tensor: Any, side: str) -> TensorForm:
    if not isinstance(tensor, dict):
        raise ProtocolError(f"one of the model's {side} is no object")
    name = as_name(tensor.get("name"), f"the name of one of the model's {side}")
    datatype = as_name(tensor.get("datatype"), f"the datatype of {name}")
    return TensorForm(name, datatype, as_shape(tensor.get("shape"), name, least=-1))
