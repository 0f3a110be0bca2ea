"""The other side of `tensor_sandbox`: loads one file and runs it on the tensors it is given. Run as `python -m`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.sandbox import serve_blocks
from edge_runtime.inference.tensors import Tensor

MOST_TENSOR_BYTES = 256 << 20

_loaded: dict[str, Engine] = {}  # one, by its path


def run(request: Mapping[str, Any], block: bytes) -> tuple[dict[str, Any], bytes]:
    """Answer one request of `SandboxedModel`. Raises ModelError."""
    engine = _engine(str(request["path"]), request["runtime"])
    if not request.get("invoke"):
        return {
            "inputs": [_about(one) for one in engine.inputs],
            "outputs": [_about(one) for one in engine.outputs],
        }, b""
    if request["is_first"]:
        engine.reset()
    arrays, at = [], 0
    for tensor in engine.inputs:
        arrays.append(np.frombuffer(block, tensor.dtype, tensor.size, at).reshape(tensor.shape))
        at += arrays[-1].nbytes
    outputs = engine.invoke(*arrays)
    content = b"".join([np.ascontiguousarray(output).tobytes() for output in outputs])
    return {"shapes": [list(output.shape) for output in outputs]}, content


def _engine(path: str, runtime: Any) -> Engine:
    if path not in _loaded:
        engine = Engine(Path(path), runtime=runtime)
        for tensor in (*engine.inputs, *engine.outputs):
            if not 0 <= tensor.size * tensor.dtype.itemsize <= MOST_TENSOR_BYTES:
                raise ModelError(f"{path}: {tensor.name} has {tensor.size} values, refused")
        if all(tensor.dtype.kind in "biuf" for tensor in engine.inputs):
            engine.warm_up(1)  # some files load and die when they run
        _loaded[path] = engine
    return _loaded[path]


def _about(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype_name,
        "shape": list(tensor.shape),
        "scales": list(tensor.scales),
        "zero_points": list(tensor.zero_points),
        "axis": tensor.axis,
    }


if __name__ == "__main__":
    serve_blocks(run)
