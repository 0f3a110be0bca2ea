"""Write a dense network as a full int8 TFLite file, without TensorFlow: quantisation and flatbuffer by hand.

Quantisation as in the LiteRT 8-bit specification (ai.google.dev/edge/litert/models/quantization_spec): weights int8,
symmetric, one scale for each tensor; biases int32 with scale of input times scale of weights; activations int8 with
zero point. Field numbers are those of tensorflow/lite/schema/schema.fbs, version 3. The same network gives the same
bytes.

Not `ai_edge_litert.schema_py_generated`, whose object API would save some 60 lines: it puts buffers anywhere (5 of 8
off the 16 bytes that the schema wants), takes 6 MB more memory, and is not there beside tflite-runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from edge_runtime.learning.autoencoder import F32, Network, run_network

SCHEMA_VERSION = 3
INT32, INT8 = 2, 9  # TensorType
FULLY_CONNECTED, FULLY_CONNECTED_INT8_VERSION = 9, 4  # BuiltinOperator, and its first version with int8
FULLY_CONNECTED_OPTIONS = 8  # BuiltinOptions
NO_ACTIVATION, RELU = 0, 1
ALIGN = 16  # of buffers, as the schema wants
HEADROOM = 1.5  # faults drive the hidden values further than normal sound does


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    kind: int
    shape: tuple[int, ...]
    scale: float
    zero: int
    content: bytes = b""


def int8_tflite(network: Network, rows: F32, input_range: float) -> bytes:
    """The file's bytes.

    rows: (n, inputs), what the network will see; their largest values with HEADROOM set the scales of the layers
    between. input_range: inputs and outputs are held within plus and minus this.
    """
    values = run_network(network, rows)
    scale, zero = input_range / 127.0, 0
    tensors = [_Tensor("row", INT8, (1, rows.shape[1]), scale, zero)]
    steps: list[tuple[tuple[int, int, int], int, int]] = []
    for number, (layer, value) in enumerate(zip(network, values[1:], strict=True)):
        is_last = number == len(network) - 1
        weight_scale = max(float(np.abs(layer.weights).max()), 1e-6) / 127.0
        bias = np.rint(layer.bias.astype(np.float64) / (scale * weight_scale)).clip(-(2**31), 2**31 - 1)
        at = len(tensors)
        tensors += [
            _Tensor(f"weights{number}", INT8, layer.weights.shape, weight_scale, 0,
                    np.rint(layer.weights / weight_scale).astype(np.int8).tobytes()),
            _Tensor(f"bias{number}", INT32, layer.bias.shape, scale * weight_scale, 0, bias.astype("<i4").tobytes()),
        ]  # fmt: skip
        scale, zero = (input_range / 127.0, 0) if is_last else _range(value, layer.relu)
        name = "rebuilt" if is_last else f"hidden{number}"
        tensors.append(_Tensor(name, INT8, (1, len(layer.bias)), scale, zero))
        steps.append(((0 if number == 0 else at - 1, at, at + 1), at + 2, RELU if layer.relu else NO_ACTIVATION))
    return _flatbuffer(tensors, steps)


def _range(values: F32, relu: bool) -> tuple[float, int]:
    low = 0.0 if relu else min(float(values.min()), 0.0) * HEADROOM
    high = max(float(values.max()), 1e-3) * HEADROOM
    scale = (high - low) / 255.0
    return scale, int(np.clip(round(-128.0 - low / scale), -128, 127))


def _flatbuffer(tensors: Sequence[_Tensor], steps: Sequence[tuple[tuple[int, int, int], int, int]]) -> bytes:
    """Children before parents, as flatbuffers are built. Buffer 0 is the empty one by convention."""
    builder: Any = flatbuffers.Builder(16_384)
    contents = [b"", *(tensor.content for tensor in tensors if tensor.content)]
    buffers = _tables(builder, [_buffer(builder, content) for content in contents])
    owners = iter(range(1, len(contents)))
    made = [_tensor(builder, tensor, next(owners) if tensor.content else 0) for tensor in tensors]
    graph = _table(
        builder,
        5,
        (0, "offset", _tables(builder, made)),
        (1, "offset", _numbers(builder, [0])),
        (2, "offset", _numbers(builder, [len(tensors) - 1])),
        (3, "offset", _tables(builder, [_operator(builder, *step) for step in steps])),
        (4, "offset", builder.CreateString("main")),
    )
    code = _table(
        builder,
        4,
        (0, "Int8", FULLY_CONNECTED),
        (2, "Int32", FULLY_CONNECTED_INT8_VERSION),
        (3, "Int32", FULLY_CONNECTED),
    )
    model = _table(
        builder,
        5,
        (0, "Uint32", SCHEMA_VERSION),
        (1, "offset", _tables(builder, [code])),
        (2, "offset", _tables(builder, [graph])),
        (3, "offset", builder.CreateString("edge_runtime sound autoencoder")),
        (4, "offset", buffers),
    )
    builder.Finish(model, file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(builder: Any, tensor: _Tensor, buffer: int) -> int:
    quantisation = _table(
        builder,
        7,
        (2, "offset", builder.CreateNumpyVector(np.array([tensor.scale], np.float32))),
        (3, "offset", builder.CreateNumpyVector(np.array([tensor.zero], np.int64))),
    )
    return _table(
        builder,
        5,
        (0, "offset", _numbers(builder, tensor.shape)),
        (1, "Int8", tensor.kind),
        (2, "Uint32", buffer),
        (3, "offset", builder.CreateString(tensor.name)),
        (4, "offset", quantisation),
    )


def _operator(builder: Any, inputs: tuple[int, int, int], output: int, activation: int) -> int:
    return _table(
        builder,
        5,
        (0, "Uint32", 0),
        (1, "offset", _numbers(builder, inputs)),
        (2, "offset", _numbers(builder, [output])),
        (3, "Uint8", FULLY_CONNECTED_OPTIONS),
        (4, "offset", _table(builder, 4, (0, "Int8", activation))),
    )


def _buffer(builder: Any, content: bytes) -> int:
    if not content:
        return _table(builder, 1)
    builder.StartVector(1, len(content), ALIGN)
    builder.head = builder.head - len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    return _table(builder, 1, (0, "offset", builder.EndVector()))


def _table(builder: Any, slots: int, *fields: tuple[int, str, int]) -> int:
    """A table with these (slot, type, value); children are made already. Values that are 0 keep their default."""
    prepend: dict[str, Callable[[int, int, int], None]] = {
        "offset": builder.PrependUOffsetTRelativeSlot,
        "Int8": builder.PrependInt8Slot,
        "Uint8": builder.PrependUint8Slot,
        "Int32": builder.PrependInt32Slot,
        "Uint32": builder.PrependUint32Slot,
    }
    builder.StartObject(slots)
    for slot, kind, value in fields:
        prepend[kind](slot, value, 0)
    return int(builder.EndObject())


def _tables(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: Any, values: Sequence[int]) -> int:
    array: NDArray[np.int32] = np.asarray(values, np.int32)
    return int(builder.CreateNumpyVector(array))
