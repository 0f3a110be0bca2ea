"""Detection: heads of the YOLO family, whose one output holds a row for each place that was looked at.

    yolov5   x, y, w, h, objectness, one score for each label; score of a label = objectness * its score
    yolov8   x, y, w, h, one score for each label
    nms      x0, y0, x1, y1, score, label: overlaps were dropped in the network, unused rows have score 0

x, y is the middle of the box. Rows may stand across (1, rows, columns) or down (1, columns, rows), which the number of
labels tells. Exports measure boxes in shares of the input or in its pixels: `output.box_extent` says what the whole
input is. A head that gives raw feature maps, without the grid added and the sigmoid done, has another shape or scores
outside 0..1 and is refused. In `nms`, exports differ in whether score or label comes first: a label is a whole number,
so the first picture with a score between 0 and 1 settles it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import OutputSpec
from edge_runtime.core.messages import Region
from edge_runtime.inference.findings import MOST_SCORES, WHOLE, Box, Finding, Outputs, Values, as_score
from edge_runtime.inference.overlap import Corners, without_overlaps
from edge_runtime.inference.tensors import Tensor

FAR_OUTSIDE = 2.0  # inputs; a box that ends so far away was measured in another unit
NMS_COLUMNS = 6


class YoloDecoder:
    """`yolov5` and `yolov8`: boxes of all places, overlaps dropped here."""

    def __init__(self, outputs: Sequence[Tensor], spec: OutputSpec) -> None:
        self._with_objectness = spec.boxes == "yolov5"
        self._columns = (5 if self._with_objectness else 4) + len(spec.labels)
        self._values = Values(_only(outputs, spec), "none")
        shape = outputs[0].shape
        if len(shape) != 3 or shape[0] != 1 or self._columns not in shape[1:]:
            raise ModelError(
                f"a {spec.boxes} head with {len(spec.labels)} labels is 1 x rows x {self._columns}, or turned; "
                f"this output is {outputs[0]}; check output.labels"
            )
        self._is_turned = shape[2] != self._columns
        self._spec = spec
        self._boxes = _Boxes(spec)

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        rows = self._values(outputs[0])[0]
        rows = rows.T if self._is_turned else rows
        scores = rows[:, self._columns - len(self._spec.labels) :]
        as_score(float(scores.min()), "a place")
        as_score(float(scores.max()), "a place")
        if self._with_objectness:
            as_score(float(rows[:, 4].max()), "an object at a place")
            as_score(float(rows[:, 4].min()), "an object at a place")
            scores = scores * rows[:, 4:5]
        labels = scores.argmax(axis=1)
        strongest = scores[np.arange(len(scores)), labels]
        found = np.flatnonzero(strongest >= self._spec.confidence)
        corners = self._boxes.corners(_from_middle(rows[found, :4]))
        kept = without_overlaps(corners, strongest[found], labels[found], self._spec.overlap)
        regions = [
            self._boxes.region(corners[index], float(strongest[found[index]]), int(labels[found[index]]))
            for index in kept
        ]
        return self._boxes.finding(scores.max(axis=0), regions)


class EndToEndDecoder:
    """`nms`: what the network itself has sorted out."""

    def __init__(self, outputs: Sequence[Tensor], spec: OutputSpec) -> None:
        tensor = _only(outputs, spec)
        if len(tensor.shape) != 3 or tensor.shape[0] != 1 or tensor.shape[2] != NMS_COLUMNS:
            raise ModelError(f"a head with overlaps dropped is 1 x rows x {NMS_COLUMNS}; this output is {tensor}")
        self._values = Values(tensor, "none")
        self._spec = spec
        self._boxes = _Boxes(spec)
        self._score, self._label = 4, 5
        self._is_settled = False  # which column holds the labels

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        rows = self._values(outputs[0])[0]
        rows = rows[(rows[:, 4] > 0.0) | (rows[:, 5] > 0.0)]  # neither: an unused row, or label 0 with score 0
        self._settle(rows)
        strongest = np.zeros(len(self._spec.labels), np.float32)
        regions: list[Region] = []
        rows = rows[rows[:, self._score] != 0.0]
        sure = rows[:, self._score] >= self._spec.confidence
        corners = iter(self._boxes.corners(rows[sure, :4]))
        for row, is_sure in zip(rows, sure, strict=True):
            score, label = as_score(float(row[self._score]), "a box"), round(float(row[self._label]))
            if not 0 <= label < len(strongest):
                raise ModelError(f"the model tells class {label}, output.labels has {len(strongest)}")
            strongest[label] = max(strongest[label], score)
            if is_sure:
                regions.append(self._boxes.region(next(corners), score, label))
        regions.sort(key=lambda region: -region.score)
        return self._boxes.finding(strongest, regions)

    def _settle(self, rows: NDArray[np.float32]) -> None:
        labels_whole, scores_whole = (_are_whole(rows[:, column]) for column in (self._label, self._score))
        if labels_whole:
            self._is_settled |= not scores_whole
            return
        if self._is_settled or not scores_whole:
            raise ModelError("neither score nor label of a box is a whole number: this is no output after NMS")
        self._score, self._label, self._is_settled = self._label, self._score, True


class _Boxes:
    """What both heads do with boxes that were found."""

    def __init__(self, spec: OutputSpec) -> None:
        self._labels = spec.labels
        self._extent = np.array((*spec.box_extent, *spec.box_extent), np.float32)
        self._defects = set(spec.defect_labels)

    def corners(self, boxes: Corners) -> Corners:
        """Shares of the input, from boxes in the model's unit. Raises ModelError where the unit cannot be that."""
        shares = np.asarray(boxes / self._extent, np.float32)
        if shares.size and (float(shares.max()) > 1.0 + FAR_OUTSIDE or float(shares.min()) < -FAR_OUTSIDE):
            raise ModelError(
                f"a box ends at {float(boxes.max()):.4g} where the whole input measures {float(self._extent[0]):g}; "
                "check output.box_extent"
            )
        return np.clip(shares, 0.0, 1.0)

    def region(self, corners: NDArray[np.float32], score: float, label: int) -> Region:
        x0, y0, x1, y1 = (float(edge) for edge in corners)
        return Region(x0, y0, max(x1 - x0, 0.0), max(y1 - y0, 0.0), min(score, 1.0), self._labels[label])

    def finding(self, strongest: NDArray[np.float32], regions: Sequence[Region]) -> Finding:
        """strongest: the best score of each label, reported whether or not it is a box. Labels may repeat."""
        best: dict[str, float] = {}
        for label, score in zip(self._labels, strongest, strict=True):
            best[label] = max(best.get(label, 0.0), min(max(float(score), 0.0), 1.0))
        judged = [score for label, score in best.items() if not self._defects or label in self._defects]
        if len(best) > MOST_SCORES:
            shown = set(sorted(best, key=lambda label: -best[label])[:MOST_SCORES]) | self._defects
            best = {label: score for label, score in best.items() if label in shown}
        return Finding(max(judged, default=0.0), best, tuple(regions))


def _only(outputs: Sequence[Tensor], spec: OutputSpec) -> Tensor:
    if len(outputs) != 1:
        raise ModelError(
            f"a {spec.boxes} head has one output, this model has {len(outputs)}; export it with its boxes decoded"
        )
    return outputs[0]


def _from_middle(rows: NDArray[np.float32]) -> Corners:
    half = rows[:, 2:4] / 2.0
    return np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)


def _are_whole(values: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(values, np.rint(values)))
