"""The other side of `probe`: loads one file, runs it on noise and tells what it saw. Run as `python -m`."""

from __future__ import annotations

import hashlib
import resource
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.sandbox import serve_child
from edge_runtime.inference.tensors import Tensor

MOST_RUNS = 200
MOST_INPUT_BYTES = 256 << 20


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request of `probe`. Raises ModelError."""
    path = Path(request["path"])
    started = time.perf_counter()
    engine = Engine(path, request["threads"], request["delegate"], request["runtime"])
    load_ms = (time.perf_counter() - started) * 1e3
    inputs = [_noise(tensor) for tensor in engine.inputs]
    engine.invoke(*inputs)
    times: list[float] = []
    until = time.perf_counter() + request["seconds"]
    while not times or (time.perf_counter() < until and len(times) < MOST_RUNS):
        started = time.perf_counter()
        engine.invoke(*inputs)
        times.append((time.perf_counter() - started) * 1e3)
    content = path.read_bytes()
    operators = engine.operators()
    signatures = engine.signatures()
    return {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "runtime": engine.runtime.label,
        "inputs": [tensor.describe() for tensor in engine.inputs],
        "outputs": [tensor.describe() for tensor in engine.outputs],
        "signatures": list(signatures),
        "operators": dict(Counter(operator for operator in operators if operator != "DELEGATE")),
        "delegated": "DELEGATE" in operators,
        "load_ms": round(load_ms, 2),
        "median_ms": round(statistics.median(times), 4),
        "runs": len(times),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "remarks": _remarks(engine, signatures, bool(operators) and "DELEGATE" not in operators),
    }


def _noise(tensor: Tensor) -> NDArray[Any]:
    if tensor.dtype.kind not in "biuf":
        raise ModelError(f"input {tensor.name} is {tensor.dtype_name}; only numbers can go in")
    if tensor.size * tensor.dtype.itemsize > MOST_INPUT_BYTES or tensor.size < 0:
        raise ModelError(f"input {tensor.name} has {tensor.size} values, refused")
    generator = np.random.default_rng(0)
    if tensor.dtype.kind == "f":
        return generator.random(tensor.shape, np.float32).astype(tensor.dtype)
    high = 2 if tensor.dtype.kind == "b" else 100
    return generator.integers(0, high, tensor.shape).astype(tensor.dtype)


def _remarks(engine: Engine, signatures: Sequence[str], is_slow: bool) -> list[str]:
    remarks = []
    if len(engine.inputs) != 1:
        remarks.append(f"it has {len(engine.inputs)} inputs; a bundle for pictures or sound needs exactly one")
    if len(signatures) > 1:
        remarks.append(f"it has {len(signatures)} signatures ({', '.join(signatures)}); the whole graph was run as one")
    for tensor in engine.inputs:
        if tensor.dtype.name not in ("int8", "uint8", "float32"):
            remarks.append(f"input {tensor.name} is {tensor.dtype_name}; pictures go into int8, uint8 or float32 only")
        elif tensor.is_byte and not tensor.is_quantised:
            remarks.append(
                f"input {tensor.name} is {tensor.dtype_name} without quantisation numbers; taken as raw pixels"
            )
    for tensor in (*engine.inputs, *engine.outputs):
        if not np.isfinite(tensor.scales).all() or any(scale <= 0 for scale in tensor.scales):
            remarks.append(f"{tensor.name} has a scale that is not above 0; its numbers make no sense")
    if is_slow:
        remarks.append(f"{engine.runtime.label} delegates none of it; expect a multiple of the delegated time")
    return remarks


if __name__ == "__main__":
    serve_child(run)
