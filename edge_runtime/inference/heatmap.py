"""Heat maps: one number for each cell and channel, from segmentation networks and the scratch model.

    heat  = activation(dequantised cells), 0..1
    raw   = mean of the `top_k` hottest cells of a label's channel
    score = 1 / (1 + exp(-(a * raw + b))) with `calibration = (a, b)`, else raw

One hot cell may be noise, and the mean of all cells hides a hairline. Regions are the connected components (8
neighbours) of cells whose heat is at least `region_at`, each scored by its hottest cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
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
    as_score,
    defect_indices,
    labels_axis,
    sigmoid,
)
from edge_runtime.inference.tensors import Tensor

MOST_REGIONS = 32  # per prediction, the hottest first; a picture with more has one problem, not 33


class HeatmapDecoder:
    def __init__(self, outputs: Sequence[Tensor], spec: OutputSpec) -> None:
        if len(outputs) != 1:
            raise ModelError(f"a heat-map model has one output, this one has {len(outputs)}")
        shape = outputs[0].shape
        if len(shape) not in (3, 4) or shape[0] != 1:
            raise ModelError(f"a heat map is 1 x rows x columns x labels, this output is {outputs[0]}")
        axis = labels_axis(outputs[0], len(spec.labels))
        channels = shape[3] if len(shape) == 4 else 1
        if axis is None and channels != len(spec.labels):
            raise ModelError(f"the heat map has {channels} channels, output.labels has {len(spec.labels)}")
        self._is_planar = axis == 1  # one map for each label after the other
        self._cells = shape[1:] if self._is_planar else (shape[1], shape[2], channels)
        if self._is_planar and spec.activation == "softmax":
            raise ModelError("a heat map of planes has no softmax across them; it is a segmentation")
        self._values = Values(outputs[0], spec.activation)
        self._spec = spec
        self._judged = defect_indices(spec)
        if not self._judged:
            raise ModelError("none of output.labels counts as defective", "set output.defect_labels")

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        cells = self._values(outputs[0]).reshape(self._cells)
        if self._is_planar:
            cells = np.ascontiguousarray(cells.transpose(1, 2, 0))
        if content != WHOLE:
            cells = without_padding(cells, content)
        scores: dict[str, float] = {}
        regions: list[Region] = []
        for channel in self._judged:
            label = self._spec.labels[channel]
            heat = cells[:, :, channel]
            self._refuse_beyond(heat, label)
            scores[label] = as_score(self._score(heat), f"label {label!r}")
            regions += find_regions(heat, self._spec.region_at, label)
        if len(self._judged) == 1:
            hottest = cells[:, :, self._judged[0]]
        else:
            hottest = cells[:, :, list(self._judged)].max(axis=2)
            regions = sorted(regions, key=lambda region: -region.score)[:MOST_REGIONS]
        return Finding(max(scores.values()), scores, tuple(regions), np.clip(hottest, 0.0, 1.0))

    def _refuse_beyond(self, heat: NDArray[np.float32], label: str) -> None:
        """Without a calibration the cells are the scores: logits taken for heat would look cool where they are not."""
        if self._spec.calibration is None:
            as_score(float(heat.min()), f"the coolest cell of label {label!r}")
            as_score(float(heat.max()), f"the hottest cell of label {label!r}")

    def _score(self, heat: NDArray[np.float32]) -> float:
        raw = hottest_mean(heat, self._spec.top_k)
        if self._spec.calibration is None:
            return raw
        a, b = self._spec.calibration
        return sigmoid(a * raw + b)


def hottest_mean(heat: NDArray[np.float32], count: int) -> float:
    """Mean of the `count` largest cells."""
    flat = heat.ravel()
    if count == 1:
        return float(flat.max())
    if count >= flat.size:
        return float(flat.mean())
    return float(np.partition(flat, flat.size - count)[-count:].mean())


def find_regions(heat: NDArray[np.float32], at: float, label: str) -> list[Region]:
    """Connected cells of at least `at`, the hottest first. Boxes in fractions of the heat map."""
    hot = heat >= at
    if not hot.any():
        return []
    rows, columns = heat.shape
    count, marks, boxes, _ = cv2.connectedComponentsWithStats(hot.view(np.uint8), connectivity=8)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, marks[hot], heat[hot])
    order = np.argsort(-peaks[1:], kind="stable")[:MOST_REGIONS] + 1
    return [
        Region(
            x=float(boxes[index, cv2.CC_STAT_LEFT]) / columns,
            y=float(boxes[index, cv2.CC_STAT_TOP]) / rows,
            w=float(boxes[index, cv2.CC_STAT_WIDTH]) / columns,
            h=float(boxes[index, cv2.CC_STAT_HEIGHT]) / rows,
            score=min(float(peaks[index]), 1.0),
            label=label,
        )
        for index in order
    ]


def without_padding(cells: NDArray[np.float32], content: Box) -> NDArray[np.float32]:
    """The same cells with those whose middle lies in the padding at 0. At least one row and column stays."""
    rows, columns = cells.shape[:2]
    top, bottom = _inside(content[1], content[3], rows)
    left, right = _inside(content[0], content[2], columns)
    kept = np.zeros_like(cells)
    kept[top:bottom, left:right] = cells[top:bottom, left:right]
    return kept


def _inside(start: float, end: float, cells: int) -> tuple[int, int]:
    first = min(max(math.ceil(start * cells - 0.5), 0), cells - 1)
    return first, max(first + 1, min(math.ceil(end * cells - 0.5), cells))
