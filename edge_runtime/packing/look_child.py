"""The other side of `look`: opens one file, runs it on inputs that differ, tells what it saw. Run as `python -m`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.engine import Engine
from edge_runtime.inference.sandbox import serve_child
from edge_runtime.inference.tensors import Tensor
from edge_runtime.packing.metadata import read_notes

MOST_INPUT_BYTES = 256 << 20
FIRST = 6  # entries of an axis told one by one: a box has four, then a score and a label
SUM_ROUNDING = 0.05  # of a few classes, each rounded to 1/256
MOST_TOLD = 1e30  # JSON has no infinity


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request of `look`. Raises ModelError."""
    path = Path(request["path"])
    engine = Engine(
        path, runtime=request["runtime"], signature=request["signature"], input_shape=request["input_shape"]
    )
    content = path.read_bytes()
    is_open = not request["input_shape"] and any(-1 in sizes[1:] for sizes in engine.input_sizes)
    seen = _seen(engine) if _is_runnable(engine.inputs) and not is_open else []
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "runtime": engine.runtime.label,
        "signatures": list(engine.signatures()),
        "inputs": [tensor.describe() for tensor in engine.inputs],
        "input_sizes": [list(sizes) for sizes in engine.input_sizes],
        "outputs": [tensor.describe() for tensor in engine.outputs],
        "output_operators": list(engine.output_operators()),
        "seen": seen,
        "notes": asdict(read_notes(content)),
    }


def _is_runnable(inputs: Sequence[Tensor]) -> bool:
    """With numbers, and of a size that fits: others are refused by who asked, with a sentence about the input."""
    return all(
        tensor.dtype.kind in "iuf" and 0 < tensor.size * tensor.dtype.itemsize <= MOST_INPUT_BYTES for tensor in inputs
    )


def _seen(engine: Engine) -> list[dict[str, Any]]:
    """One entry for each output."""
    kept: list[list[NDArray[Any]]] = [[] for _ in engine.outputs]
    for inputs in _different(engine.inputs):
        for values, output in zip(kept, engine.invoke(*inputs), strict=True):
            values.append(output)
    return [_summary(tensor, values) for tensor, values in zip(engine.outputs, kept, strict=True)]


def _different(inputs: Sequence[Tensor]) -> list[list[NDArray[Any]]]:
    """Black, white and noise, as raw numbers of the tensors: floats in 0..1, integers over their whole range."""
    draw = np.random.default_rng(0)
    made = []
    for how in ("low", "high", "noise", "coarse"):
        arrays = []
        for tensor in inputs:
            low, high = (0.0, 1.0) if tensor.dtype.kind == "f" else _limits(tensor)
            share = {
                "low": np.zeros(tensor.shape),
                "high": np.ones(tensor.shape),
                "noise": draw.random(tensor.shape),
                "coarse": np.full(tensor.shape, 0.5) * draw.integers(0, 3, tensor.shape[-1:] or 1),
            }[how]
            arrays.append(np.asarray(low + share * (high - low)).astype(tensor.dtype))
        made.append(arrays)
    return made


def _limits(tensor: Tensor) -> tuple[float, float]:
    limits = np.iinfo(tensor.dtype)
    return float(max(limits.min, -32768)), float(min(limits.max, 32767))


def _summary(tensor: Tensor, outputs: Sequence[NDArray[Any]]) -> dict[str, Any]:
    changes = any(output.shape != tensor.shape for output in outputs)
    if tensor.dtype.kind not in "iuf" or not all(output.size for output in outputs):
        return _told(np.zeros(1, np.float32), changes) | {"is_finite": False}
    real = [tensor.dequantise(output) for output in outputs]
    about = _told(np.concatenate([values.ravel() for values in real]), changes)
    if not changes and real[0].ndim >= 1:
        sums = np.concatenate([values.sum(axis=-1).ravel() for values in real])
        about["sums_to_one"] = bool(np.allclose(sums, 1.0, atol=SUM_ROUNDING))
    if not changes and real[0].ndim == 3:
        stacked = np.concatenate(real)
        about["first_columns"] = [_range(stacked[:, :, index]) for index in range(min(FIRST, stacked.shape[2]))]
        about["first_rows"] = [_range(stacked[:, index]) for index in range(min(FIRST, stacked.shape[1]))]
        about["whole_columns"] = [_whole(stacked[:, :, index]) for index in range(min(FIRST, stacked.shape[2]))]
    return about


def _told(values: NDArray[np.float32], changes: bool) -> dict[str, Any]:
    low, high = _range(values)
    return {
        "low": low,
        "high": high,
        "is_finite": bool(np.isfinite(values).all()),
        "is_whole": _whole(values),
        "sums_to_one": False,
        "changes": changes,
        "first_columns": [],
        "first_rows": [],
        "whole_columns": [],
    }


def _range(values: NDArray[np.float32]) -> tuple[float, float]:
    told = np.nan_to_num(values, nan=0.0, posinf=MOST_TOLD, neginf=-MOST_TOLD)
    return float(told.min()), float(told.max())


def _whole(values: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(values, np.rint(values)))


if __name__ == "__main__":
    serve_child(run)
