"""Detection: the four outputs of `TFLite_Detection_PostProcess`.

Boxes (1, n, 4) as ymin, xmin, ymax, xmax, then classes, scores and a count. TF1 and Model Maker exports list boxes,
classes, scores, count; TF2 object-detection exports list scores, boxes, count, classes. Boxes and count are known by
shape, and whether classes or scores come first by where the boxes stand, unless the values say otherwise: some exports
list scores before classes behind the boxes. A class is a whole number, so the first picture with a score between 0 and
1 settles which list is which; what contradicts it later is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import OutputSpec
from edge_runtime.core.messages import Region
from edge_runtime.inference.findings import WHOLE, Box, Finding, Outputs, Values, as_score
from edge_runtime.inference.tensors import Tensor


class BoxDecoder:
    def __init__(self, outputs: Sequence[Tensor], spec: OutputSpec) -> None:
        order = _order(outputs)
        if order is None:
            shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in outputs)
            raise ModelError(
                f"a detector has boxes (1, n, 4), classes (1, n), scores (1, n) and a count as "
                f"TFLite_Detection_PostProcess gives them; this model has {shapes}"
            )
        self._boxes, self._classes, self._scores, self._count = order
        self._values = [Values(tensor, "none") for tensor in outputs]
        self._spec = spec
        self._defects = set(spec.defect_labels)
        self._is_settled = False  # which of the two lists holds the classes

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        values = [read(output) for read, output in zip(self._values, outputs, strict=True)]
        count = min(max(int(values[self._count].ravel()[0]), 0), values[self._scores].size)
        self._settle([value.ravel()[:count] for value in values])
        boxes, scores = values[self._boxes][0], values[self._scores].ravel()
        best: dict[str, float] = {}
        regions: list[Region] = []
        for index in range(count):
            label = self._label(float(values[self._classes].ravel()[index]))
            score = as_score(float(scores[index]), f"a box of label {label!r}")
            best[label] = max(best.get(label, 0.0), score)
            if score >= self._spec.confidence:
                ymin, xmin, ymax, xmax = (float(edge) for edge in np.clip(boxes[index], 0.0, 1.0))
                regions.append(Region(xmin, ymin, max(xmax - xmin, 0.0), max(ymax - ymin, 0.0), score, label))
        regions.sort(key=lambda region: -region.score)
        judged = [score for label, score in best.items() if not self._defects or label in self._defects]
        return Finding(max(judged, default=0.0), best, tuple(regions))

    def _settle(self, values: Sequence[NDArray[np.float32]]) -> None:
        """See the module. Raises ModelError when neither list can be that of the classes."""
        if _are_whole(values[self._classes]):
            self._is_settled |= not _are_whole(values[self._scores])
            return
        if self._is_settled or not _are_whole(values[self._scores]):
            told = float(values[self._classes][0])
            raise ModelError(
                f"the model tells class {told:g}, and a class is a whole number: its outputs are not those of "
                "TFLite_Detection_PostProcess"
            )
        self._classes, self._scores, self._is_settled = self._scores, self._classes, True

    def _label(self, value: float) -> str:
        index = round(value)
        if not 0 <= index < len(self._spec.labels):
            raise ModelError(f"the model tells class {value:g}, output.labels has {len(self._spec.labels)}")
        return self._spec.labels[index]


def is_postprocess(outputs: Sequence[Tensor]) -> bool:
    """These are the four outputs, in whichever order."""
    return _order(outputs) is not None


def _are_whole(values: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(values, np.rint(values)))


def _order(outputs: Sequence[Tensor]) -> tuple[int, int, int, int] | None:
    """Where boxes, classes, scores and count stand, or None when these are not those outputs."""
    if len(outputs) != 4:
        return None
    boxes = [index for index, tensor in enumerate(outputs) if len(tensor.shape) == 3 and tensor.shape[2] == 4]
    if len(boxes) != 1:
        return None
    number = outputs[boxes[0]].shape[1]
    lists = [index for index, tensor in enumerate(outputs) if tensor.shape == (1, number)]
    counts = [index for index, tensor in enumerate(outputs) if tensor.shape in ((1,), ())]
    if len(lists) != 2 or len(counts) != 1:
        return None
    classes, scores = lists if boxes[0] == 0 else reversed(lists)
    return boxes[0], classes, scores, counts[0]
