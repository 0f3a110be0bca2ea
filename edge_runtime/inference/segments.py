"""Segmentation: which of the labels each pixel belongs to, and from that what is defective, and where.

    scores   1 x rows x columns x labels (or labels x rows x columns); after the activation a pixel belongs to the
             label with the largest score
    map      1 x rows x columns of whole numbers, each the number of a label; belonging counts as a score of 1

The heat of a label is its score on each pixel, and its score for the part the mean of the `top_k` hottest pixels: with
a map that is the share of `top_k` pixels which belong to it, so `top_k` is how many make a defect. Regions are the
connected pixels (8 neighbours) that belong to a label with at least `region_at`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import OutputSpec
from edge_runtime.core.messages import Region
from edge_runtime.inference.findings import (
    WHOLE,
    Box,
    Finding,
    Outputs,
    Values,
    activate,
    as_score,
    defect_indices,
    labels_axis,
)
from edge_runtime.inference.heatmap import MOST_REGIONS, find_regions, hottest_mean, without_padding
from edge_runtime.inference.tensors import Tensor

LEAST_HEAT = 1e-6  # a region has some


class SegmentDecoder:
    def __init__(self, outputs: Sequence[Tensor], spec: OutputSpec) -> None:
        if len(outputs) != 1:
            raise ModelError(f"a segmentation model has one output, this one has {len(outputs)}")
        self._tensor = outputs[0]
        self._is_map = is_label_map(outputs[0])
        if not self._is_map and labels_axis(outputs[0], len(spec.labels)) is None:
            raise ModelError(
                f"a segmentation is 1 x rows x columns x {len(spec.labels)} labels, or a map of label numbers; "
                f"this output is {outputs[0]}"
            )
        if self._is_map and spec.activation != "none":
            raise ModelError("a map of label numbers has no activation; set output.activation to 'none'")
        self._axis = None if self._is_map else labels_axis(outputs[0], len(spec.labels))
        self._values = Values(outputs[0], "none" if self._is_map or self._axis == 1 else spec.activation)
        self._activation = spec.activation if self._axis == 1 else "none"
        self._spec = spec
        self._judged = defect_indices(spec)
        if not self._judged:
            raise ModelError("none of output.labels counts as defective", "set output.defect_labels")

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        belongs, heats = self._from_map(outputs[0]) if self._is_map else self._from_scores(outputs[0])
        scores: dict[str, float] = {}
        regions: list[Region] = []
        hottest = np.zeros(belongs.shape, np.float32)
        for index in self._judged:
            label = self._spec.labels[index]
            heat = heats[index] if content == WHOLE else without_padding(heats[index], content)
            as_score(float(heat.min()), f"the coolest pixel of label {label!r}")
            as_score(float(heat.max()), f"the hottest pixel of label {label!r}")
            scores[label] = as_score(hottest_mean(heat, self._spec.top_k), f"label {label!r}")
            own = np.where(belongs == index, heat, np.float32(0.0))
            regions += find_regions(own, max(self._spec.region_at, LEAST_HEAT), label)
            np.maximum(hottest, heat, out=hottest)
        regions = sorted(regions, key=lambda region: -region.score)[:MOST_REGIONS]
        return Finding(max(scores.values()), scores, tuple(regions), np.clip(hottest, 0.0, 1.0))

    def _from_scores(self, stored: NDArray[np.generic]) -> tuple[NDArray[np.intp], dict[int, NDArray[np.float32]]]:
        cells = self._values(stored)[0]
        if self._axis == 1:
            cells = activate(np.ascontiguousarray(cells.transpose(1, 2, 0)), self._activation)
        return cells.argmax(axis=2), {index: cells[:, :, index] for index in self._judged}

    def _from_map(self, stored: NDArray[np.generic]) -> tuple[NDArray[np.intp], dict[int, NDArray[np.float32]]]:
        values = self._values(stored)
        numbers = values.reshape(self._tensor.shape[1:3])
        if not np.array_equal(numbers, np.rint(numbers)):
            raise ModelError("a pixel has no whole number: this output is no map of label numbers")
        if numbers.min() < 0 or numbers.max() >= len(self._spec.labels):
            told = numbers.max() if numbers.min() >= 0 else numbers.min()
            raise ModelError(f"a pixel has label number {told:g}, output.labels has {len(self._spec.labels)}")
        belongs = numbers.astype(np.intp)
        return belongs, {index: (belongs == index).astype(np.float32) for index in self._judged}


def is_label_map(tensor: Tensor) -> bool:
    """One number for each pixel, each the number of a label."""
    shape = tensor.shape
    is_flat = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
    return is_flat and shape[0] == 1 and not tensor.is_quantised and tensor.dtype.kind in "iu"
