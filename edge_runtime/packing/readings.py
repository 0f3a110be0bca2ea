"""In which ways may the outputs of a model be read? A table of forms; what fits none is refused with the reason.

A reading is a kind of model, for detectors the form of their boxes, and how many labels that takes. Shapes say most of
it: a YOLO head has one row for each cell of its grids (three with objectness, as v5 has it), which the size of the
input tells. Values say the rest: what sums to one belongs to one label, whole numbers are numbers of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind
from edge_runtime.inference.boxes import is_postprocess
from edge_runtime.inference.double_activation import ROUNDING
from edge_runtime.inference.segments import is_label_map
from edge_runtime.inference.tensors import Tensor
from edge_runtime.packing.facts import Facts, Seen

Boxes = Literal["postprocess", "yolov5", "yolov8", "nms"]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16), (32,), (16,), (8,))
MOST_SORTED = 1000  # rows of a head after NMS; exports have 100 or 300
NMS_COLUMNS = 6
PIXEL_FROM = 4.0  # further out are no shares: a v5 head of noise says sizes of up to 2.4 inputs, places are within 1


@dataclass(frozen=True, slots=True)
class Reading:
    """labels: how many it takes; None: any number. why: what speaks for it."""

    kind: Kind
    labels: int | None
    why: str
    boxes: Boxes = "postprocess"


def readings(facts: Facts, size: tuple[int, int]) -> list[Reading]:
    """Every reading, the likeliest first. size: width and height of the input. Raises ModelError without any."""
    refuse_unusable(facts)
    found = list(chain.from_iterable(form(facts, size) for form in FORMS))
    if not found:
        raise ModelError(*_why_none(facts.outputs))
    return found


def refuse_unusable(facts: Facts) -> None:
    """Outputs that no bundle can have."""
    for tensor, seen in zip(facts.outputs, facts.seen, strict=True):
        if tensor.dtype.kind not in "iuf":
            raise ModelError(f"output {tensor.name} is {tensor.dtype_name}; scores are numbers")
        if seen.changes:
            raise ModelError(
                f"the size of output {tensor.name} is only known at work, or changes with the picture",
                "convert it with fixed sizes",
            )
        if not seen.is_finite:
            raise ModelError(f"output {tensor.name} holds values that are no numbers (NaN or infinite)")


def are_shares(seen: Seen) -> bool:
    """Nothing but 0..1 came out, whatever went in."""
    return seen.low >= -ROUNDING and seen.high <= 1.0 + ROUNDING


def _postprocess(facts: Facts, size: tuple[int, int]) -> Iterator[Reading]:
    if is_postprocess(facts.outputs):
        yield Reading(Kind.DETECTION, None, "four outputs as of TFLite_Detection_PostProcess")


def _yolo(facts: Facts, size: tuple[int, int]) -> Iterator[Reading]:
    """Rows are the longer axis; how many there are tells which head it is."""
    if len(facts.outputs) != 1 or len(facts.outputs[0].shape) != 3 or is_label_map(facts.outputs[0]):
        return
    rows, columns = sorted(facts.outputs[0].shape[1:], reverse=True)
    cells = {sum((size[0] // s) * (size[1] // s) for s in strides) for strides in STRIDES}
    if rows in cells and columns > 4:
        yield Reading(Kind.DETECTION, columns - 4, f"{rows} rows, one for each cell of its grids", "yolov8")
        yield Reading(Kind.DETECTION, columns - 5, f"{rows} rows, one for each cell of its grids", "yolov5")
    elif rows in {3 * count for count in cells} and columns > 5:
        yield Reading(Kind.DETECTION, columns - 5, f"{rows} rows, three for each cell of its grids", "yolov5")


def _sorted_boxes(facts: Facts, size: tuple[int, int]) -> Iterator[Reading]:
    if len(facts.outputs) != 1 or len(facts.outputs[0].shape) != 3:
        return
    _, rows, columns = facts.outputs[0].shape
    whole = facts.seen[0].whole_columns
    if columns == NMS_COLUMNS and rows <= MOST_SORTED and (whole[4] or whole[5]):
        yield Reading(Kind.DETECTION, None, f"{rows} rows of corners, score and label", "nms")


def _classes(facts: Facts, size: tuple[int, int]) -> Iterator[Reading]:
    if len(facts.outputs) != 1:
        return
    shape = facts.outputs[0].shape
    if len([side for side in shape if side > 1]) <= 1 and shape and max(shape) == facts.outputs[0].size:
        count = facts.outputs[0].size
        yield Reading(Kind.CLASSIFICATION, count, f"one output of {count} numbers")


def _maps(facts: Facts, size: tuple[int, int]) -> Iterator[Reading]:
    """Of cells: numbers of labels, one channel, or one for each label."""
    if len(facts.outputs) != 1:
        return
    tensor, seen = facts.outputs[0], facts.seen[0]
    shape = tensor.shape
    if len(shape) not in (3, 4) or shape[0] != 1:
        return
    if is_label_map(tensor):
        yield Reading(Kind.SEGMENTATION, None, "a map of whole numbers, those of labels")
    elif len(shape) == 3 and _has_form_of(shape[1:], size):
        yield Reading(Kind.HEATMAP, 1, "one map of numbers")
    elif len(shape) == 4:
        for count in _channels(shape, size):
            is_independent = are_shares(seen) and not seen.sums_to_one
            kinds = (Kind.HEATMAP, Kind.SEGMENTATION) if is_independent else (Kind.SEGMENTATION, Kind.HEATMAP)
            for kind in kinds if count > 1 else (Kind.HEATMAP,):
                yield Reading(kind, count, f"a map of {count} numbers for each cell")


def _channels(shape: tuple[int, ...], size: tuple[int, int]) -> list[int]:
    """How many numbers each cell has: on the last axis, or on the one before rows and columns."""
    ways = ((shape[3], shape[1:3]), (shape[1], shape[2:4]))
    found = [count for count, cells in ways if min(cells) > 1 and _has_form_of(cells, size)]
    return list(dict.fromkeys(found))


FORMS: tuple[Callable[[Facts, tuple[int, int]], Iterator[Reading]], ...] = (
    _postprocess, _yolo, _sorted_boxes, _classes, _maps,
)  # fmt: skip


def is_in_pixels(seen: Seen, is_turned: bool) -> bool | None:
    """Whether boxes of a head with three axes are measured in pixels; None where no box was seen at all."""
    edges = (seen.first_rows if is_turned else seen.first_columns)[:4]
    far = max((max(abs(low), abs(high)) for low, high in edges), default=0.0)
    return None if far == 0.0 else far > PIXEL_FROM


def _has_form_of(cells: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Rows and columns lie like those of the input, to within a cell."""
    rows, columns = cells
    return abs(rows * size[0] - columns * size[1]) <= max(size)


def _why_none(outputs: Sequence[Tensor]) -> tuple[str, str]:
    """A sentence about outputs that fit no form, and the way out."""
    shapes = ", ".join("x".join(map(str, tensor.shape)) or "1" for tensor in outputs[:6])
    boxes = [tensor.shape[1] for tensor in outputs if len(tensor.shape) == 3 and tensor.shape[2] == 4]
    if len(outputs) == 2 and len(boxes) == 1 and all(tensor.shape[1:2] == (boxes[0],) for tensor in outputs):
        return (
            f"its outputs ({shapes}) are boxes and scores of {boxes[0]} anchors, and boxes are told as offsets from "
            "anchors that are not in the file: they cannot be decoded with certainty",
            "export it with TFLite_Detection_PostProcess, which holds the anchors (export_tflite_graph_tf2.py)",
        )
    if len(outputs) == 2 and {len(tensor.shape) for tensor in outputs} == {3, 4}:
        return (
            f"its outputs ({shapes}) are those of instance segmentation, boxes with masks",
            "export the detector without masks, or a segmentation",
        )
    if len(outputs) > 1 and all(len(tensor.shape) in (4, 5) for tensor in outputs):
        return (
            f"its outputs ({shapes}) are raw maps of a detector whose boxes were not decoded",
            "export it with its head: one output of decoded boxes, or TFLite_Detection_PostProcess",
        )
    return (
        f"its outputs ({shapes}) are those of no classifier, detector, segmentation or heat map that is known here",
        "export one of these: scores of labels; boxes, classes, scores and count; a YOLO head; a map",
    )
