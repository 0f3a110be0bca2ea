"""What a model is asked with a question, and the bytes of its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.tensors import Tensor
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.api.datatypes import as_json_list, datatype_of
from edge_runtime.serve.api.question import Question

MOST_BATCH = 64
MOST_OUTPUT_BYTES = 64 << 20  # of one answer
MOST_JSON_VALUES = 2_000_000  # each takes some 50 bytes while it becomes text
Arrays = tuple[NDArray[Any], ...]
Invoke = Callable[..., Arrays]


@dataclass(frozen=True, slots=True)
class Form:
    """The tensors of one model as the protocol names them. Raises Refusal for a model that it cannot carry."""

    name: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    is_batched: bool  # every tensor has a first dimension of 1: more are asked one after the other

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    def about(self) -> dict[str, Any]:
        """Its metadata."""
        return {
            "name": self.name,
            "platform": "tensorflow_lite",
            "inputs": self._tensors(self.inputs, self.input_names),
            "outputs": self._tensors(self.outputs, self.output_names),
        }

    def shape(self, tensor: Tensor) -> list[int]:
        """With -1 where a client may choose."""
        return [-1, *tensor.shape[1:]] if self.is_batched else list(tensor.shape)

    def _tensors(self, tensors: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": datatype_of(tensor), "shape": self.shape(tensor)}
            | ({"parameters": _quantisation(tensor)} if tensor.is_quantised else {})
            for name, tensor in zip(names, tensors, strict=True)
        ]


def form_of(name: str, version: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Form:
    for tensor in (*inputs, *outputs):
        if not datatype_of(tensor):
            raise Refusal(409, f"{name}@{version}: {tensor.name} is {tensor.dtype_name}, which is not served")
    return Form(
        name,
        version,
        tuple(inputs),
        tuple(outputs),
        _names(inputs, "input"),
        _names(outputs, "output"),
        all(tensor.shape[:1] == (1,) for tensor in (*inputs, *outputs)),
    )


def _names(tensors: Sequence[Tensor], what: str) -> tuple[str, ...]:
    """Those of the file, where each has one of its own."""
    names = [tensor.name for tensor in tensors]
    clear = all(names) and len(set(names)) == len(names)
    return tuple(names) if clear else tuple(f"{what}_{at}" for at in range(len(names)))


def _quantisation(tensor: Tensor) -> dict[str, Any]:
    return {"scale": list(tensor.scales), "zero_point": list(tensor.zero_points)}


def batches_of(form: Form, question: Question) -> list[Arrays]:
    """The arrays of each invoke, in order. Raises Refusal (400) where they are not what the model takes."""
    given = {one.name: one for one in question.inputs}
    unknown = sorted(set(given) - set(form.input_names))
    missing = [name for name in form.input_names if name not in given]
    if unknown or missing:
        what = f"has no input '{unknown[0]}'" if unknown else f"needs input '{missing[0]}'"
        raise Refusal(400, f"{form.label} {what}; its inputs are {', '.join(form.input_names)}")
    arrays, counts = [], set()
    for name, tensor in zip(form.input_names, form.inputs, strict=True):
        one = given[name]
        if one.datatype != datatype_of(tensor):
            raise Refusal(400, f"input '{name}' is {datatype_of(tensor)}, not {one.datatype}")
        shape = one.array.shape
        fits = shape[1:] == tensor.shape[1:] if form.is_batched and shape else shape == tensor.shape
        if not fits:
            raise Refusal(400, f"input '{name}' has shape {form.shape(tensor)}, not {list(shape)}")
        arrays.append(one.array)
        counts.add(shape[0] if form.is_batched else 1)
    if len(counts) > 1 or max(counts, default=1) > MOST_BATCH:
        raise Refusal(400, f"a batch is the same for all inputs, and {MOST_BATCH} at most; here {sorted(counts)}")
    if not form.is_batched:
        return [tuple(arrays)]
    return [tuple([array[at : at + 1] for array in arrays]) for at in range(counts.pop() if counts else 1)]


def refuse_too_much(form: Form, question: Question, batches: int) -> None:
    """Raises Refusal (400) where the answer would be larger than this server holds for one client."""
    size = batches * sum(tensor.size * tensor.dtype.itemsize for tensor in form.outputs)
    if size > MOST_OUTPUT_BYTES:
        raise Refusal(400, f"an answer of {size >> 20} MB, {MOST_OUTPUT_BYTES >> 20} at most: ask for fewer at once")
    binary = {one.name for one in question.wanted or () if one.is_binary}
    names = {one.name for one in question.wanted} if question.wanted else set(form.output_names)
    if question.wanted is None and question.is_binary:
        return
    text = [tensor for name, tensor in zip(form.output_names, form.outputs, strict=True) if name in names - binary]
    if batches * sum(tensor.size for tensor in text) > MOST_JSON_VALUES:
        raise Refusal(400, f"more than {MOST_JSON_VALUES} values as JSON: ask for them with binary_data")


def refuse_unknown_outputs(form: Form, question: Question) -> None:
    for wanted in question.wanted or ():
        if wanted.name not in form.output_names:
            raise Refusal(
                400, f"{form.label} has no output '{wanted.name}'; its outputs are {', '.join(form.output_names)}"
            )


def joined(parts: Sequence[Arrays]) -> Arrays:
    """The outputs of all invokes as one batch."""
    if len(parts) == 1:
        return parts[0]
    return tuple([np.concatenate(one) for one in zip(*parts, strict=True)])


def is_large_text(question: Question, outputs: Arrays, most: int) -> bool:
    """Whether writing the answer as JSON takes longer than others should wait."""
    return not question.is_binary and sum(output.size for output in outputs) > most


def as_bytes(form: Form, question: Question, outputs: Arrays) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where binary data follows. Raises Refusal."""
    found = dict(zip(form.output_names, outputs, strict=True))
    if question.wanted is None:
        asked = [(name, question.is_binary) for name in form.output_names]
    else:
        asked = [(one.name, one.is_binary) for one in question.wanted]
    told, blocks = [], []
    for name, is_binary in asked:
        output = found[name]
        about: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(form.outputs[form.output_names.index(name)]),
            "shape": list(output.shape),
        }
        if is_binary:
            blocks.append(np.ascontiguousarray(output).tobytes())
            about["parameters"] = {"binary_data_size": len(blocks[-1])}
        else:
            about["data"] = as_json_list(output, name)
        told.append(about)
    head: dict[str, Any] = {"model_name": form.name, "model_version": form.version}
    if question.id is not None:
        head["id"] = question.id
    text = json.dumps(head | {"outputs": told}, separators=(",", ":"), allow_nan=False).encode()
    return (b"".join([text, *blocks]), len(text)) if blocks else (text, None)
