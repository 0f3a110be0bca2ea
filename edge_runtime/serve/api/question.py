"""One inference request of the protocol, from its bytes: JSON, with tensors in it or as binary data behind it.

github.com/kserve/open-inference-protocol (rest/inference_rest.md) with the binary tensor data extension: the header
Inference-Header-Content-Length says how long the JSON is; the binary data of the inputs follows in their order. No
Content-Type is asked for, because tritonclient sends none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.api.datatypes import DTYPES, from_json

MOST_TENSORS = 64
MOST_JSON_BYTES = 16 << 20  # parsed, it takes up to twenty times as much
MOST_DIMENSIONS = 8
MOST_NAME = 256
NOT_HERE = (  # parameters of Triton's extensions that change what an answer means: passed over, they would be a lie
    "classification", "shared_memory_region", "sequence_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """An input tensor."""

    name: str
    datatype: str
    array: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that was asked for by name."""

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True)
class Question:
    """id: None where the client gave none. wanted: None for all outputs, each as is_binary says."""

    id: str | None
    inputs: tuple[Given, ...]
    wanted: tuple[Wanted, ...] | None
    is_binary: bool


def read_question(body: bytes, header_length: str | None) -> Question:
    """header_length: the header Inference-Header-Content-Length. Raises Refusal (400)."""
    if not body:
        raise Refusal(400, 'the request has no body: POST {"inputs": [...]}, as /openapi.json and API.md show')
    length = _header_length(header_length, len(body))
    if length > MOST_JSON_BYTES:
        raise Refusal(413, f"JSON of {length >> 20} MB, {MOST_JSON_BYTES >> 20} are read: send tensors as binary data")
    about = read_object(body[:length])
    is_binary = _flag(_parameters(about, "the request"), "binary_data_output", False)
    binary = _Binary(memoryview(body)[length:])
    inputs = tuple([_given(one, binary) for one in _list(about, "inputs")])
    binary.refuse_rest()
    if not inputs:
        raise Refusal(400, "the request has no inputs")
    _refuse_repeats([one.name for one in inputs], "input")
    wanted = tuple([_wanted(one, is_binary) for one in _list(about, "outputs")]) if about.get("outputs") else None
    _refuse_repeats([one.name for one in wanted or ()], "output")
    said = about.get("id")
    if said is not None and not isinstance(said, str):
        raise Refusal(400, "id is a text")
    return Question(said, inputs, wanted, is_binary)


def _header_length(said: str | None, whole: int) -> int:
    if said is None:
        return whole
    if not (said.isascii() and said.isdecimal()) or len(said) > 12 or not 0 < int(said) <= whole:
        raise Refusal(400, f"Inference-Header-Content-Length is {said[:20]!r}, the body has {whole} bytes")
    return int(said)


def read_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as err:
        raise Refusal(400, f"the request is no JSON ({str(err)[:120] or type(err).__name__})") from err
    if not isinstance(found, dict):
        raise Refusal(400, "the request is no JSON object")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


class _Binary:
    """What stands behind the JSON, taken piece by piece."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, name: str) -> memoryview:
        if self._at + size > len(self._data):
            raise Refusal(400, f"input '{name}': {size} bytes of binary data, {len(self._data) - self._at} are left")
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece

    def refuse_rest(self) -> None:
        if self._at < len(self._data):
            raise Refusal(400, f"{len(self._data) - self._at} bytes of binary data belong to no input")


def _given(about: Any, binary: _Binary) -> Given:
    name = _name(about, "input")
    datatype = about.get("datatype")
    if datatype not in DTYPES:
        raise Refusal(400, f"input '{name}' has datatype {str(datatype)[:20]!r}; known are {', '.join(DTYPES)}")
    shape = _shape(about.get("shape"), name)
    size = _parameters(about, f"input '{name}'").get("binary_data_size")
    if size is None:
        return Given(name, datatype, from_json(about.get("data"), datatype, shape, name))
    if "data" in about:
        raise Refusal(400, f"input '{name}' has data and binary_data_size: one of them")
    dtype = DTYPES[datatype]
    needed = math.prod(shape) * dtype.itemsize
    if isinstance(size, bool) or size != needed:
        raise Refusal(400, f"input '{name}': binary_data_size {str(size)[:20]}, shape and datatype need {needed}")
    return Given(name, datatype, np.frombuffer(binary.take(needed, name), dtype).reshape(shape))


def _wanted(about: Any, default: bool) -> Wanted:
    name = _name(about, "output")
    return Wanted(name, _flag(_parameters(about, f"output '{name}'"), "binary_data", default))


def _name(about: Any, what: str) -> str:
    if not isinstance(about, dict):
        raise Refusal(400, f"an {what} is no JSON object")
    name = about.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
        raise Refusal(400, f"an {what} has no name")
    return name


def _shape(said: Any, name: str) -> tuple[int, ...]:
    is_shape = (
        isinstance(said, list)
        and len(said) <= MOST_DIMENSIONS
        and all(isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 31 for size in said)
    )
    if not is_shape:
        raise Refusal(400, f"input '{name}': shape is a list of at most {MOST_DIMENSIONS} whole numbers above 0")
    return tuple(said)


def _list(about: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = about.get(key)
    if not isinstance(found, list) or len(found) > MOST_TENSORS:
        raise Refusal(400, f"{key} is a list of at most {MOST_TENSORS}")
    return found


def _parameters(about: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found = about.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Refusal(400, f"{what}: parameters is no JSON object")
    for name in NOT_HERE:
        if found.get(name):
            raise Refusal(400, f"{what}: parameter {name} is not supported here")
    return found


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        raise Refusal(400, f"parameter {name} is true or false")
    return found


def _refuse_repeats(names: Sequence[str], what: str) -> None:
    if len(set(names)) < len(names):
        raise Refusal(400, f"an {what} is named twice")
