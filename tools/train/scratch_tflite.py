"""From a trained PyTorch network to a TFLite file: float by litert-torch, then full int8 by ai-edge-quantizer.

Both steps are the same tools that `tools/train/backbone` uses. Input and output of the int8 file are int8; a pixel p
is stored as p - 128 without rounding, because every calibration picture is given a 0 and a 255."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe
from numpy.typing import NDArray
from scratch_data import INPUT_H, INPUT_SCALE, INPUT_W

from edge_runtime.inference.engine import Engine

EXPORT_TOLERANCE = 1e-3  # of a logit; float32 in another order of additions gives 1e-6
U8 = NDArray[np.uint8]
Ranges = dict[str, Any]  # tensor name -> what the quantiser knows about its values


def export_float(model: torch.nn.Module, path: Path) -> None:
    """Write the float32 TFLite file: NHWC pixels times INPUT_SCALE in, NHWC logits out.

    The file is compared with the network, because litert-torch 0.10 silently gave two layers the same weights in 2 of 3
    exports while the weights lay in channels-last order (it tells constants apart by the address of a temporary copy).
    Raises RuntimeError when they differ.
    """
    channels_last = litert_torch.to_channel_last_io(model, args=[0], outputs=[0]).eval()
    sample = torch.rand(1, INPUT_H, INPUT_W, 3, generator=torch.Generator().manual_seed(1)) * 255.0 * INPUT_SCALE
    with _quiet():
        litert_torch.convert(channels_last, (sample,)).export(str(path))
    with torch.no_grad():
        wanted = channels_last(sample).numpy()
    (found,) = Engine(path).invoke(sample.numpy())
    if (difference := float(np.abs(found - wanted).max())) > EXPORT_TOLERANCE:
        raise RuntimeError(f"{path}: logits differ by {difference:.3g} from those of the network it was made from")


def export_int8(float_path: Path, path: Path, calibration: Sequence[U8]) -> None:
    """Write the full int8 file; `calibration` are pictures as they come in, u8 (INPUT_H, INPUT_W, 3)."""
    from ai_edge_litert.interpreter import Interpreter

    signature, details = next(iter(Interpreter(str(float_path)).get_signature_list().items()))
    name = details["inputs"][0]
    work = quantizer.Quantizer(str(float_path), recipe.static_wi8_ai8())
    ranges: Ranges = {}
    for picture in calibration:
        sample = picture[None].astype(np.float32) * INPUT_SCALE
        sample[0, 0, 0], sample[0, -1, -1] = 0.0, 255.0 * INPUT_SCALE  # pins the input's range
        with _quiet():
            _widen(ranges, work.calibrate({signature: [{name: sample}]}, num_threads=1))
    work.quantize(ranges).export_model(str(path), overwrite=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and warnings of the converters; an exception still shows itself."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _widen(ranges: Ranges, seen: Ranges) -> None:
    """Take the widest range of each tensor. The quantiser's own moving average cuts off what only scratches reach:
    image scores piled up at one value and AUROC fell from 0.995 to 0.988."""
    for name, found in seen.items():
        ranges.setdefault(name, found)
        kept = ranges[name]
        if "min" in found:
            kept["min"], kept["max"] = np.minimum(kept["min"], found["min"]), np.maximum(kept["max"], found["max"])


class TfliteHeat:
    """Heat maps of an exported file through the product's own engine."""

    def __init__(self, path: Path) -> None:
        self.engine = Engine(path)
        self._output = self.engine.outputs[0]
        self._table = self.engine.inputs[0].quantise(np.arange(256, dtype=np.float32) * np.float32(INPUT_SCALE))

    def __call__(self, picture: U8) -> NDArray[np.float32]:
        """Heat of one picture, u8 (INPUT_H, INPUT_W, 3) in, float32 (INPUT_H / 8, INPUT_W / 8) out, 0..1."""
        (logits,) = self.engine.invoke(np.take(self._table, picture)[None])
        logit = self._output.dequantise(logits)[0, :, :, 0].astype(np.float32, copy=False)
        return np.asarray(np.float32(1.0) / (np.float32(1.0) + np.exp(-logit)), np.float32)
