"""From output tensors to findings: what every decoder speaks and shares.

A decoder speaks the model's coordinates, fractions 0..1 of its input; where that lies on the frame is the business of
who cropped the frame. Quantisation always comes from the tensors themselves. Whatever is no sensible answer (not a
number, outside 0..1, another shape than declared) raises ModelError: garbage must never look like "nothing found".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import OutputSpec
from edge_runtime.core.messages import Region
from edge_runtime.inference.tensors import Tensor, check_scales

Outputs = Sequence[NDArray[Any]]
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

BACKGROUND = "background"  # a label of this name is never a defect
MOST_SCORES = 20  # labels reported with a prediction; a thousand classes would cost more than the model
ROUNDING = 0.01  # how far outside 0..1 a score may lie: an 8-bit softmax ends at 0.996 or 1.004


@dataclass(frozen=True, slots=True)
class Finding:
    """What the outputs say. Regions and heat lie on the model's input, not on the frame."""

    score: float
    scores: Mapping[str, float]
    regions: tuple[Region, ...] = ()
    heat: NDArray[np.float32] | None = None


class Decoder(Protocol):
    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        """content: the part of the model's input that shows the frame; the rest is padding and is not judged."""
        ...


class Values:
    """Real values of one output, activation included. 8-bit outputs go through a table of 256: exact, and one pass."""

    def __init__(self, tensor: Tensor, activation: str) -> None:
        check_scales(tensor)
        self._tensor = tensor
        self._activation = activation
        self._table: NDArray[np.float32] | None = None
        if tensor.dtype.kind not in "iuf":
            raise ModelError(f"output {tensor.name} is {tensor.dtype_name}; scores are numbers")
        if tensor.is_byte and tensor.is_quantised and len(tensor.scales) == 1 and activation != "softmax":
            self._table = activate(tensor.byte_values(), activation)

    def __call__(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Activated real values, float32, the stored shape; softmax runs along the last axis."""
        tensor = self._tensor
        if stored.shape != tensor.shape or stored.dtype != tensor.dtype:
            raise ModelError(f"output {tensor.name} came as {stored.dtype} {stored.shape}, declared {tensor}")
        if self._table is not None:
            return self._table[stored.view(np.uint8)]
        real = tensor.dequantise(stored)
        if not np.isfinite(real).all():
            raise ModelError(f"output {tensor.name} holds values that are no numbers (NaN or infinite)")
        return activate(real, self._activation)


def as_score(value: float, what: str) -> float:
    """A value that must be a score: in 0..1 but for rounding. Raises ModelError otherwise, NaN included."""
    if not -ROUNDING <= value <= 1.0 + ROUNDING:
        raise ModelError(f"the model says {value:.4g} for {what}, a score is in 0..1; check output.activation")
    return min(max(value, 0.0), 1.0)


def defect_indices(spec: OutputSpec) -> tuple[int, ...]:
    """Which labels count as defective: the declared ones, else all but the background."""
    wanted = spec.defect_labels or tuple(label for label in spec.labels if label.lower() != BACKGROUND)
    return tuple(index for index, label in enumerate(spec.labels) if label in wanted)


def labels_axis(tensor: Tensor, labels: int) -> int | None:
    """Which axis of a map has one entry for each label: the last, the one before rows and columns, or none."""
    shape = tensor.shape
    if len(shape) != 4 or shape[0] != 1:
        return None
    return 3 if shape[3] == labels else 1 if shape[1] == labels else None


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)) without overflow. Raises ModelError for what is no number: NaN must never become 0."""
    if math.isnan(value):
        raise ModelError("a score came out as no number (NaN); check output.calibration")
    return 1.0 / (1.0 + math.exp(-value)) if value > -700.0 else 0.0


def activate(real: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    """Real values after `none`, `sigmoid` or `softmax` along the last axis."""
    if activation == "none":
        return real
    if activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(real, -80.0, 80.0))), np.float32)
    weights = real - real.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray(weights, np.float32)
