"""Writes the two tiny models that tests run without any other data. Run it again only to change them.

bright_heat.tflite   int8 (1, 32, 32, 3) -> int8 (1, 4, 4, 1): mean brightness of each 8x8 block, 0..1
colour.tflite        float32 (1, 8, 8, 3) on 0..1 -> float32 (1, 3): softmax of 10 x the mean of each channel
maps.tflite          int8 (1, 32, 32, 3) -> int8 (1, 4, 4, 1) and (1, 2, 2, 1): two brightness maps, a tiny backbone

The flatbuffers are written slot by slot (tensorflow/lite/schema/schema.fbs, version 3), so no converter is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np

FLOAT32, INT32, INT8 = 0, 2, 9
CONV_2D, SOFTMAX, MEAN, MUL = 3, 25, 40, 18
CONV_OPTIONS, SOFTMAX_OPTIONS, MUL_OPTIONS, REDUCER_OPTIONS = 1, 9, 21, 27


@dataclass
class Tensor:
    name: str
    kind: int
    shape: Sequence[int]
    data: np.ndarray | None = None
    scale: float = 0.0
    zero: int = 0


@dataclass
class Operator:
    code: int
    inputs: Sequence[int]
    outputs: Sequence[int]
    options_kind: int
    options: Callable[[flatbuffers.Builder], int]


def main() -> None:
    here = Path(__file__).parent
    pixels = Tensor("pixels", INT8, (1, 32, 32, 3), None, 1 / 255, -128)
    (here / "bright_heat.tflite").write_bytes(
        model([pixels, *block_mean("heat", 8)], [0], [3], [conv(8, (0, 1, 2), 3)])
    )
    coarse = block_mean("coarse", 16)
    (here / "maps.tflite").write_bytes(
        model([pixels, *block_mean("fine", 8), *coarse], [0], [3, 6], [conv(8, (0, 1, 2), 3), conv(16, (0, 4, 5), 6)])
    )
    colour = [
        Tensor("pixels", FLOAT32, (1, 8, 8, 3)),
        Tensor("axes", INT32, (2,), np.array([1, 2], np.int32)),
        Tensor("mean", FLOAT32, (1, 3)),
        Tensor("softmax", FLOAT32, (1, 3)),
        Tensor("ten", FLOAT32, (1,), np.array([10], np.float32)),
        Tensor("ten_means", FLOAT32, (1, 3)),
    ]
    steps = [
        Operator(MEAN, (0, 1), (2,), REDUCER_OPTIONS, lambda b: table(b, [(0, "Bool", False)])),
        Operator(MUL, (2, 4), (5,), MUL_OPTIONS, lambda b: table(b, [(0, "Int8", 0)])),
        Operator(SOFTMAX, (5,), (3,), SOFTMAX_OPTIONS, lambda b: table(b, [(0, "Float32", 1.0)])),
    ]
    (here / "colour.tflite").write_bytes(model(colour, [0], [3], steps))


def block_mean(name: str, block: int) -> list[Tensor]:
    count = block * block * 3
    return [
        Tensor(f"{name}_w", INT8, (1, block, block, 3), np.full(count, 127, np.int8), 1 / 127 / count, 0),
        Tensor(f"{name}_b", INT32, (1,), np.zeros(1, np.int32), 1 / 255 / 127 / count, 0),
        Tensor(name, INT8, (1, 32 // block, 32 // block, 1), None, 1 / 255, -128),
    ]


def conv(stride: int, inputs: Sequence[int], output: int) -> Operator:
    slots = [(0, "Int8", 1), (1, "Int32", stride), (2, "Int32", stride), (4, "Int32", 1), (5, "Int32", 1)]
    return Operator(CONV_2D, inputs, (output,), CONV_OPTIONS, lambda b: table(b, slots))


def model(tensors: list[Tensor], inputs: list[int], outputs: list[int], steps: list[Operator]) -> bytes:
    b = flatbuffers.Builder(1024)
    buffers = [table(b, [])]
    offsets = []
    for tensor in tensors:
        index = 0
        if tensor.data is not None:
            index = len(buffers)
            buffers.append(table(b, [(0, "Offset", b.CreateNumpyVector(tensor.data.view(np.uint8)))]))
        quantisation = 0
        if tensor.scale:
            scale = b.CreateNumpyVector(np.array([tensor.scale], np.float32))
            zero = b.CreateNumpyVector(np.array([tensor.zero], np.int64))
            quantisation = table(b, [(2, "Offset", scale), (3, "Offset", zero)])
        shape, name = b.CreateNumpyVector(np.array(tensor.shape, np.int32)), b.CreateString(tensor.name)
        slots = [(0, "Offset", shape), (1, "Int8", tensor.kind), (2, "Uint32", index), (3, "Offset", name)]
        offsets.append(table(b, slots + ([(4, "Offset", quantisation)] if quantisation else [])))
    codes = sorted({step.code for step in steps})
    operators = []
    for step in steps:
        options = step.options(b)
        ins, outs = ints(b, step.inputs), ints(b, step.outputs)
        operators.append(
            table(
                b,
                [
                    (0, "Uint32", codes.index(step.code)),
                    (1, "Offset", ins),
                    (2, "Offset", outs),
                    (3, "Uint8", step.options_kind),
                    (4, "Offset", options),
                ],
            )
        )
    graph = table(
        b,
        [
            (0, "Offset", vector(b, offsets)),
            (1, "Offset", ints(b, inputs)),
            (2, "Offset", ints(b, outputs)),
            (3, "Offset", vector(b, operators)),
        ],
    )
    code_tables = [table(b, [(0, "Int8", code), (2, "Int32", 1), (3, "Int32", code)]) for code in codes]
    root = table(
        b,
        [
            (0, "Uint32", 3),
            (1, "Offset", vector(b, code_tables)),
            (2, "Offset", vector(b, [graph])),
            (4, "Offset", vector(b, buffers)),
        ],
    )
    b.Finish(root, file_identifier=b"TFL3")
    return bytes(b.Output())


def table(b: flatbuffers.Builder, slots: Sequence[tuple[int, str, object]]) -> int:
    b.StartObject(max((slot for slot, _, _ in slots), default=-1) + 1)
    for slot, kind, value in slots:
        if kind == "Offset":
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            getattr(b, f"Prepend{kind}Slot")(slot, value, None)
    return b.EndObject()


def vector(b: flatbuffers.Builder, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def ints(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    return b.CreateNumpyVector(np.array(values, np.int32))


if __name__ == "__main__":
    main()
