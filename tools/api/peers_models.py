"""Every model file of a folder, asked over HTTP from its child process, against the raw interpreter: bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"BOOL": "?", "UINT8": "u1", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2",
          "FP32": "f4", "FP64": "f8"}  # fmt: skip
LENGTH = "Inference-Header-Content-Length"
RAW = """
import sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
inputs = np.load(sys.argv[2])
for at, details in enumerate(interpreter.get_input_details()):
    interpreter.set_tensor(details["index"], inputs[f"arr_{at}"])
interpreter.invoke()
np.savez(sys.argv[2], *[interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()])
"""  # in a process of its own: the odd ones may end it


def models_course(url: str, folder: Path) -> Sequence[tuple[str, str]]:
    return [(path.name, _asked(url, path)) for path in sorted(folder.rglob("*.tflite"))]


def _asked(url: str, path: Path) -> str:
    try:
        with urllib.request.urlopen(f"{url}/v2/models/{path.stem}", timeout=120) as answer:
            about = json.load(answer)
    except urllib.error.HTTPError as err:
        why = str(json.load(err).get("error", ""))
        return "passed" if err.code == 409 and why and "odd" in str(path) else f"{err.code} {why}"
    draw = np.random.default_rng(3)
    inputs = []
    for one in about["inputs"]:
        shape, dtype = [1 if size == -1 else size for size in one["shape"]], np.dtype(DTYPES[one["datatype"]])
        inputs.append(
            draw.normal(size=shape).astype(dtype) if dtype.kind == "f" else draw.integers(0, 100, shape).astype(dtype)
        )
    expected = _raw(path, inputs)
    found = _infer(url, path.stem, about, inputs)
    same = [(a.dtype, a.shape, a.tobytes()) for a in found] == [(b.dtype, b.shape, b.tobytes()) for b in expected]
    return "passed" if same else "other bits than the raw interpreter"


def _infer(url: str, model: str, about: dict[str, Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    told = [
        {"name": one["name"], "shape": list(array.shape), "datatype": one["datatype"],
         "parameters": {"binary_data_size": array.nbytes}}
        for one, array in zip(about["inputs"], arrays, strict=True)
    ]  # fmt: skip
    text = json.dumps({"inputs": told, "parameters": {"binary_data_output": True}}).encode()
    body = text + b"".join(array.tobytes() for array in arrays)
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", body, {LENGTH: str(len(text))})
    with urllib.request.urlopen(request, timeout=120) as answer:
        length, content, found = int(answer.headers[LENGTH]), answer.read(), []
    at = length
    for one in json.loads(content[:length])["outputs"]:
        size = one["parameters"]["binary_data_size"]
        found.append(np.frombuffer(content[at : at + size], DTYPES[one["datatype"]]).reshape(one["shape"]))
        at += size
    return found


def _raw(path: Path, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file.name, *arrays)
        subprocess.run([sys.executable, "-c", RAW, str(path), file.name], check=True, capture_output=True, timeout=120)
        with np.load(file.name) as loaded:
            return [loaded[name] for name in loaded.files]
