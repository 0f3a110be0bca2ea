"""Boxes that tell of the same thing: the weaker of two that overlap too much is dropped, label by label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_CANDIDATES = 1000  # the strongest; a confidence that lets more through is a wrong one, and NMS is quadratic
MOST_BOXES = 100  # reported of one picture; TFLite_Detection_PostProcess is usually exported with as many

Corners = NDArray[np.float32]  # (n, 4): x0, y0, x1, y1


def without_overlaps(boxes: Corners, scores: NDArray[np.float32], labels: NDArray[np.intp], above: float) -> list[int]:
    """Rows that stay, the strongest first: greedy non-maximum suppression within each label.

    above: intersection over union beyond which the weaker box is dropped. Of equal scores the earlier row is stronger.
    """
    order = np.argsort(-scores, kind="stable")[:MOST_CANDIDATES]
    kept: list[int] = []
    while order.size and len(kept) < MOST_BOXES:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        is_same = labels[rest] == labels[first]
        order = rest[~(is_same & (_overlap(boxes[first], boxes[rest]) > above))]
    return kept


def _overlap(one: NDArray[np.float32], others: Corners) -> NDArray[np.float32]:
    """Intersection over union of one box with each of the others; 0 where both are empty."""
    wide = np.minimum(one[2], others[:, 2]) - np.maximum(one[0], others[:, 0])
    high = np.minimum(one[3], others[:, 3]) - np.maximum(one[1], others[:, 1])
    shared = np.clip(wide, 0.0, None) * np.clip(high, 0.0, None)
    whole = _area(one[None])[0] + _area(others) - shared
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0.0))


def _area(boxes: Corners) -> NDArray[np.float32]:
    return np.asarray(np.clip(boxes[:, 2] - boxes[:, 0], 0.0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0.0, None))
