"""Small .tflite files written operator by operator, for tests that need a model of a certain shape.

The object API of the schema that comes with the runtime does the packing; nothing of it is in the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

TYPES = {
    "float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16, "int32": schema.TensorType.INT32, "int64": schema.TensorType.INT64,
    "float64": schema.TensorType.FLOAT64, "bool": schema.TensorType.BOOL, "string": schema.TensorType.STRING,
}  # fmt: skip


class Model:
    """A model file in the making. Tensors are known by number; graph 0 is the one that runs without a signature."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._model.subgraphs = []
        self._model.signatureDefs = []
        self._model.metadata = []
        self._codes: dict[tuple[int, bytes | None], int] = {}

    def graph(self) -> Graph:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = [], [], f"graph{len(self._model.subgraphs)}".encode()
        self._model.subgraphs.append(graph)
        return Graph(self, graph)

    def signature(self, key: str, graph: Graph) -> None:
        """Name a graph; its tensors are named as they are."""
        about = schema.SignatureDefT()
        about.signatureKey, about.subgraphIndex = key.encode(), self._model.subgraphs.index(graph.raw)
        about.inputs = [_named(graph, number) for number in graph.raw.inputs]
        about.outputs = [_named(graph, number) for number in graph.raw.outputs]
        self._model.signatureDefs.append(about)

    def metadata(self, name: str, content: bytes) -> None:
        about = schema.MetadataT()
        about.name, about.buffer = name.encode(), self.buffer(np.frombuffer(content, np.uint8))
        self._model.metadata.append(about)

    def buffer(self, data: np.ndarray) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        return len(self._model.buffers) - 1

    def code(self, builtin: int, custom: bytes | None = None) -> int:
        key = (builtin, custom)
        if key not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
            code.version, code.customCode = (4 if builtin == schema.BuiltinOperator.FULLY_CONNECTED else 1), custom
            self._codes[key] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[key]

    def bytes(self) -> bytes:
        builder = flatbuffers.Builder(4096)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class Graph:
    def __init__(self, model: Model, raw: Any) -> None:
        self._model, self.raw = model, raw
        raw.inputs, raw.outputs = [], []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        scale: float | None = None,
        zero: int = 0,
        data: np.ndarray | None = None,
        open_sizes: Sequence[int] | None = None,
    ) -> int:
        """open_sizes: the shape with -1 where the file leaves it open."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), TYPES[dtype]
        tensor.buffer = 0 if data is None else self._model.buffer(data)
        if open_sizes is not None:
            tensor.shapeSignature = list(open_sizes)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([scale], np.float32)
            tensor.quantization.zeroPoint = np.array([zero], np.int64)
        self.raw.tensors.append(tensor)
        return len(self.raw.tensors) - 1

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32", **how: Any) -> int:
        self.raw.inputs.append(self.tensor(name, shape, dtype, **how))
        return int(self.raw.inputs[-1])

    def constant(self, name: str, data: np.ndarray, **how: Any) -> int:
        return self.tensor(name, data.shape, str(data.dtype), data=data, **how)

    def outputs(self, *numbers: int) -> None:
        self.raw.outputs = list(numbers)

    def add(self, operator: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """A built-in operator by its name in the schema, with the fields of its options."""
        raw = schema.OperatorT()
        raw.opcodeIndex = self._model.code(getattr(schema.BuiltinOperator, operator))
        raw.inputs, raw.outputs = list(inputs), list(outputs)
        kind = _OPTIONS.get(operator)
        if kind:
            raw.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            raw.builtinOptions = getattr(schema, f"{kind}T")()
            for field, value in options.items():
                setattr(raw.builtinOptions, field, value)
        self.raw.operators.append(raw)

    def add_custom(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: Mapping[str, Any] | None = None
    ) -> None:
        raw = schema.OperatorT()
        raw.opcodeIndex = self._model.code(schema.BuiltinOperator.CUSTOM, name.encode())
        raw.inputs, raw.outputs = list(inputs), list(outputs)
        raw.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(dict(options or {}))), np.uint8)
        self.raw.operators.append(raw)

    def then(self, operator: str, source: int, shape: Sequence[int], *more: int, **options: Any) -> int:
        """The float tensor that an operator makes of another."""
        made = self.tensor(f"{operator.lower()}{len(self.raw.tensors)}", shape)
        self.add(operator, [source, *more], [made], **options)
        return made


_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions", "CONV_2D": "Conv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "SOFTMAX": "SoftmaxOptions", "RESHAPE": "ReshapeOptions",
    "CONCATENATION": "ConcatenationOptions", "TRANSPOSE": "TransposeOptions", "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions", "IF": "IfOptions",
}  # fmt: skip


def _named(graph: Graph, number: int) -> Any:
    about = schema.TensorMapT()
    about.name, about.tensorIndex = graph.raw.tensors[number].name, number
    return about
