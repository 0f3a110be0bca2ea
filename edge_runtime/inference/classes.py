"""Classification: one number for each label.

The score of a prediction is the largest score among `output.defect_labels`. A generic classifier that declares none
(a thousand kinds of things) has no notion of defective: its score is that of its best label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import OutputSpec
from edge_runtime.inference.findings import MOST_SCORES, WHOLE, Box, Finding, Outputs, Values, as_score
from edge_runtime.inference.tensors import Tensor


class ClassDecoder:
    def __init__(self, outputs: Sequence[Tensor], spec: OutputSpec) -> None:
        if len(outputs) != 1:
            raise ModelError(f"a classifier has one output, this model has {len(outputs)}")
        if outputs[0].size != len(spec.labels):
            raise ModelError(f"the model tells {outputs[0].size} classes, output.labels has {len(spec.labels)}")
        self._values = Values(outputs[0], spec.activation)
        self._labels = spec.labels
        self._defects = [index for index, label in enumerate(spec.labels) if label in spec.defect_labels]

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        values = self._values(outputs[0]).ravel()
        top = int(values.argmax())
        as_score(float(values.min()), "its least likely label")
        as_score(float(values[top]), f"label {self._labels[top]!r}")
        shown = range(len(values)) if len(values) <= MOST_SCORES else np.argsort(values)[: -MOST_SCORES - 1 : -1]
        scores: dict[str, float] = {}
        for index in (*shown, *self._defects):
            label = self._labels[index]
            scores[label] = max(scores.get(label, 0.0), min(float(values[index]), 1.0))  # labels may repeat
        score = max((scores[self._labels[index]] for index in self._defects), default=scores[self._labels[top]])
        return Finding(score, scores)
