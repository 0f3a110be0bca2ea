"""Messages of the Open Inference Protocol v2 with its binary tensor extension: one picture's tensor to one answer.

The tensor travels as raw bytes behind a small JSON header, and so should the outputs; where a server takes none, it
travels as JSON numbers, and a server that answers in them is understood. Whatever is not exactly an answer to the
question (other id, model, outputs, shapes, sizes, values that are no numbers) raises ProtocolError: nothing of it may
look like a prediction. Pure functions.

Protocol: github.com/kserve/open-inference-protocol; binary tensors: triton-inference-server, extension_binary_data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ProtocolError
from edge_runtime.inference.picture_wire import (
    MOST_BYTES,
    Answer,
    ServedModel,
    TensorForm,
    as_array,
    as_name,
    as_shape,
    as_text,
    dtype_of,
    size_of,
)
from edge_runtime.process.json_lines import as_object

HEADER_LENGTH = "Inference-Header-Content-Length"
MOST_DIGITS = 12  # of it
BINARY = "binary_tensor_data"  # the extension's name, as Triton and others list it


def question(
    served: ServedModel, datatype: str, shape: Sequence[int], content: bytes, name: str
) -> tuple[bytes, dict[str, str]]:
    """The body that asks for all outputs, and its headers. name: the request's id."""
    tensor: dict[str, Any] = {"name": served.inputs[0].name, "shape": list(shape), "datatype": datatype}
    if not served.takes_binary:
        tensor["data"] = np.frombuffer(content, dtype_of(datatype)).tolist()
        asked = {"id": name, "inputs": [tensor], "outputs": [{"name": form.name} for form in served.outputs]}
        return json.dumps(asked, separators=(",", ":")).encode(), {"Content-Type": "application/json"}
    tensor["parameters"] = {"binary_data_size": len(content)}
    outputs = [{"name": form.name, "parameters": {"binary_data": True}} for form in served.outputs]
    header = json.dumps({"id": name, "inputs": [tensor], "outputs": outputs}, separators=(",", ":")).encode()
    return header + content, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}


def takes_binary(server: Mapping[str, Any]) -> bool:
    """server: its own description (`GET v2`). One that lists its extensions and not this one takes JSON alone."""
    extensions = server.get("extensions")
    return not isinstance(extensions, list) or BINARY in extensions


def answer(served: ServedModel, headers: Mapping[str, str], body: bytes, name: str) -> Answer:
    """headers: names in small letters. Raises ProtocolError when it is no answer to the request of this id."""
    document, binary = _parts(headers, body)
    if document.get("id") != name:
        raise ProtocolError(f"the answer is for request {as_text(document.get('id'))[:40]!r}, {name!r} was asked")
    if document.get("model_name") != served.name:
        raise ProtocolError(f"model {as_text(document.get('model_name'))[:40]!r} answers, {served.name!r} was asked")
    version = document.get("model_version")
    outputs = _outputs(document, served, binary)
    return Answer("" if version in (None, "") else as_name(version, "the model's version"), outputs)


def reason(body: bytes) -> str:
    """Why a server refuses, in its own words."""
    try:
        return as_text(as_object(body).get("error"))
    except ProtocolError:
        return as_text(body[:80].decode(errors="replace"))


def _parts(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], memoryview]:
    coding = headers.get("content-encoding", "identity")
    if coding != "identity":
        raise ProtocolError(f"the answer is packed ({coding[:20]!r}), which was not asked for")
    length = headers.get(HEADER_LENGTH.lower())
    if length is None:
        return as_object(body), memoryview(b"")
    if not length.isascii() or not length.isdecimal() or len(length) > MOST_DIGITS or int(length) > len(body):
        raise ProtocolError(f"{HEADER_LENGTH} is {length[:20]!r}, of a body of {len(body)} bytes")
    return as_object(body[: int(length)]), memoryview(body)[int(length) :]


def _outputs(document: Mapping[str, Any], served: ServedModel, binary: memoryview) -> tuple[NDArray[Any], ...]:
    found = document.get("outputs")
    if not isinstance(found, list) or len(found) != len(served.outputs):
        raise ProtocolError(f"the answer has not the {len(served.outputs)} outputs of the model")
    wanted = {form.name: form for form in served.outputs}
    arrays: dict[str, NDArray[Any]] = {}
    at = total = 0
    for tensor in found:
        form = wanted.get(str(tensor.get("name"))) if isinstance(tensor, dict) else None
        if form is None or form.name in arrays:
            raise ProtocolError("the answer has outputs that the model has not, or one twice")
        shape = _shape(tensor, form)
        total += size_of(form.datatype, shape)
        if total > MOST_BYTES:
            raise ProtocolError(f"outputs of more than {MOST_BYTES} bytes")
        size = _binary_size(tensor)
        if size is None:
            arrays[form.name] = _from_json(tensor.get("data"), form, shape)
        else:
            arrays[form.name] = as_array(bytes(binary[at : at + size]), form.datatype, shape)
            at += size
    if at != len(binary):
        raise ProtocolError(f"{len(binary)} bytes behind the header, its outputs tell of {at}")
    return tuple(arrays[form.name] for form in served.outputs)


def _shape(tensor: Mapping[str, Any], form: TensorForm) -> tuple[int, ...]:
    if tensor.get("datatype") != form.datatype:
        raise ProtocolError(f"output {form.name} came as {as_text(tensor.get('datatype'))[:20]}, told is {form}")
    shape = as_shape(tensor.get("shape"), form.name)
    if not form.fits(shape):
        raise ProtocolError(f"output {form.name} came as {'x'.join(map(str, shape))}, told is {form}")
    return shape


def _binary_size(tensor: Mapping[str, Any]) -> int | None:
    """None where the values stand in the JSON."""
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MOST_BYTES or "data" in tensor:
        raise ProtocolError(f"binary_data_size is {str(size)[:20]}")
    return size


def _from_json(data: Any, form: TensorForm, shape: Sequence[int]) -> NDArray[Any]:
    """Flat or nested; numbers that fit the datatype."""
    dtype = dtype_of(form.datatype)
    try:
        values = np.array(data).reshape(-1)
    except (ValueError, TypeError, RecursionError) as err:
        raise ProtocolError(f"output {form.name} holds a ragged list") from err
    if values.dtype.kind not in "biuf" or values.size != int(np.prod(shape, dtype=np.int64)):
        raise ProtocolError(f"output {form.name} holds no {'x'.join(map(str, shape))} numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, values):
        raise ProtocolError(f"output {form.name} holds numbers that are no {form.datatype}")
    return as_array(cast.tobytes(), form.datatype, shape)
