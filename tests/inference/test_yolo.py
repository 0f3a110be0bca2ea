"""YOLO heads against a naive reference: every form, every garbage, and overlaps dropped one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind, OutputSpec
from edge_runtime.inference.decoders import make_decoder
from edge_runtime.inference.findings import MOST_SCORES
from edge_runtime.inference.overlap import MOST_BOXES, without_overlaps
from edge_runtime.inference.tensors import Tensor

F32, I8 = np.dtype(np.float32), np.dtype(np.int8)
LABELS = ("dent", "scratch", "stain")


def decoder(shape, boxes, labels=LABELS, tensor: Tensor | None = None, **spec):
    out = tensor or Tensor("out", F32, shape)
    return make_decoder(Kind.DETECTION, [out], OutputSpec(labels=labels, boxes=boxes, **spec))


# -- the reference: nested loops over plain numbers ------------------------------------------------------------------


def naive_overlap(one, other) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    whole = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / whole if whole > 0.0 else 0.0


def naive_yolo(rows, labels: int, with_object: bool, confidence: float, overlap: float, extent: float):
    """[(label, score, corners)] the strongest first, and the best score of each label."""
    found, best = [], [0.0] * labels
    for number, row in enumerate(rows):
        x, y, w, h = (value / extent for value in row[:4])
        scores = [float(np.float32(value)) for value in row[4:]]
        if with_object:
            scores = [float(np.float32(scores[0]) * np.float32(value)) for value in scores[1:]]
        best = [max(pair) for pair in zip(best, scores, strict=True)]
        label = scores.index(max(scores))
        if scores[label] >= confidence:
            corners = [min(max(edge, 0.0), 1.0) for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
            found.append((-scores[label], number, label, corners))
    kept: list = []
    for score, _, label, corners in sorted(found):
        if all(label != other or naive_overlap(corners, place) <= overlap for other, _, place in kept):
            kept.append((label, -score, corners))
    return kept, best


def random_head(seed: int, rows: int, labels: int, with_object: bool) -> np.ndarray:
    draw = np.random.default_rng(seed)
    middle, size = draw.uniform(0, 1, (rows, 2)), draw.uniform(0.05, 0.5, (rows, 2))
    scores = draw.uniform(0, 1, (rows, labels + (1 if with_object else 0)))
    return np.concatenate([middle, size, scores], axis=1).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 40),
    labels=st.integers(1, 5),
    boxes=st.sampled_from(["yolov5", "yolov8"]),
    is_turned=st.booleans(),
    extent=st.sampled_from([1.0, 64.0]),
    confidence=st.sampled_from([0.1, 0.5, 0.9]),
    overlap=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_every_head_says_what_nested_loops_say(seed, rows, labels, boxes, is_turned, extent, confidence, overlap):
    with_object = boxes == "yolov5"
    head = random_head(seed, rows, labels, with_object)
    columns = head.shape[1]
    if is_turned and rows == columns:
        return  # a square head is read as rows
    head[:, :4] *= np.float32(extent)
    names = tuple(f"l{number}" for number in range(labels))
    stored = np.ascontiguousarray(head.T if is_turned else head)[None]
    decode = decoder(stored.shape, boxes, names, confidence=confidence, overlap=overlap, box_extent=(extent, extent))
    finding = decode([stored])
    kept, best = naive_yolo(head.tolist(), labels, with_object, confidence, overlap, extent)
    assert [names.index(region.label) for region in finding.regions] == [label for label, _, _ in kept]
    for region, (_, score, corners) in zip(finding.regions, kept, strict=True):
        assert region.score == pytest.approx(score, abs=1e-6)
        assert (region.x, region.y, region.x + region.w, region.y + region.h) == pytest.approx(corners, abs=1e-5)
    assert list(finding.scores.values()) == pytest.approx(best, abs=1e-6)
    assert finding.score == pytest.approx(max(best), abs=1e-6)


def test_overlaps_are_dropped_within_a_label_only_and_the_first_of_equals_stays():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0.5, 0, 1, 1]], np.float32)
    scores = np.array([0.8, 0.9, 0.9, 0.7], np.float32)
    assert without_overlaps(boxes, scores, np.array([0, 1, 1, 0]), 0.45) == [1, 0]
    assert without_overlaps(boxes, scores, np.array([0, 1, 1, 0]), 0.5) == [1, 0, 3]
    assert without_overlaps(boxes[:0], scores[:0], np.zeros(0, np.intp), 0.5) == []


def test_a_confidence_of_nothing_reports_no_more_boxes_than_anybody_reads():
    head = random_head(1, 3000, 3, False)
    head[:, 2:4] = 0.001
    assert len(decoder((1, 3000, 7), "yolov8", confidence=0.0)([head[None]]).regions) == MOST_BOXES


def test_score_is_that_of_the_worst_defect_label_even_below_the_confidence():
    head = np.array([[[0.5, 0.5, 0.2, 0.2, 0.4, 0.9, 0.1]]], np.float32)
    finding = decoder((1, 1, 7), "yolov8", defect_labels=("dent", "stain"), confidence=0.5)([head])
    assert finding.score == pytest.approx(0.4)
    assert [region.label for region in finding.regions] == ["scratch"]


def test_of_many_labels_the_best_twenty_are_told():
    names = tuple(f"l{number}" for number in range(80))
    head = random_head(2, 30, 80, False)
    finding = decoder((1, 30, 84), "yolov8", names, defect_labels=("l3",))([head[None]])
    assert len(finding.scores) in (MOST_SCORES, MOST_SCORES + 1)
    assert finding.score == finding.scores["l3"] == pytest.approx(float(head[:, 7].max()))


def test_quantised_heads_come_through_the_tensors_own_numbers():
    tensor = Tensor("out", I8, (1, 2, 6), (1 / 128,), (-100,))
    decode = decoder((), "yolov8", ("a", "b"), tensor)
    stored = np.array([[[-36, -36, -68, -68, -100, 20], [-36, -36, -68, -68, -90, -100]]], np.int8)
    finding = decode([stored])
    assert finding.scores == pytest.approx({"a": 10 / 128, "b": 120 / 128})
    assert finding.regions[0].w == pytest.approx(0.25)


@pytest.mark.parametrize("boxes", ["yolov5", "yolov8", "nms"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 7.0, -3.0])
def test_garbage_is_never_nothing_found(boxes, bad):
    columns = {"yolov5": 8, "yolov8": 7, "nms": 6}[boxes]
    for column in range(4, columns):
        head = np.full((1, 3, columns), 0.5, np.float32)
        head[0, 1, column] = bad
        with pytest.raises(ModelError):
            decoder((1, 3, columns), boxes)([head])


def test_boxes_in_another_unit_than_declared_are_refused():
    head = np.array([[[320, 320, 64, 64, 0.9, 0.1, 0.1]]], np.float32)
    with pytest.raises(
        ModelError, match=r"a box ends at 352 where the whole input measures 1; check output.box_extent"
    ):
        decoder((1, 1, 7), "yolov8")([head])
    region = decoder((1, 1, 7), "yolov8", box_extent=(640, 640))([head]).regions[0]
    assert (region.x, region.w) == pytest.approx((0.45, 0.1))


@pytest.mark.parametrize(
    ("shapes", "boxes", "sentence"),
    [
        ([(1, 84, 9)], "yolov8", "with 3 labels is 1 x rows x 7, or turned"),
        ([(1, 20, 20, 24)], "yolov5", "with 3 labels is 1 x rows x 8, or turned"),
        ([(1, 100, 7), (1, 3)], "yolov8", "has one output, this model has 2; export it with its boxes decoded"),
        ([(1, 100, 7)], "nms", "is 1 x rows x 6"),
    ],
)  # fmt: skip
def test_heads_of_another_shape_are_refused(shapes, boxes, sentence):
    tensors = [Tensor("out", F32, shape) for shape in shapes]
    with pytest.raises(ModelError, match=sentence):
        make_decoder(Kind.DETECTION, tensors, OutputSpec(labels=LABELS, boxes=boxes))


# -- heads that dropped overlaps themselves ----------------------------------------------------------------------------


def sorted_head(order: str, *rows) -> np.ndarray:
    """rows: x0, y0, x1, y1, score, label."""
    head = np.array([rows], np.float32)
    return head if order == "score first" else head[:, :, [0, 1, 2, 3, 5, 4]]


@pytest.mark.parametrize("order", ["score first", "label first"])
def test_which_column_is_the_label_is_settled_by_what_the_model_says(order):
    decode = decoder((1, 2, 6), "nms", confidence=0.3)
    nothing = sorted_head(order, (0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0))
    assert decode([nothing]).score == 0.0
    two = sorted_head(order, (0.1, 0.2, 0.3, 0.5, 0.25, 1), (0.5, 0.5, 1.0, 1.0, 0.75, 2))
    for _ in range(2):
        finding = decode([two])
        assert finding.scores == pytest.approx({"dent": 0.0, "scratch": 0.25, "stain": 0.75})
        assert [(region.label, region.x) for region in finding.regions] == [("stain", 0.5)]
    other = sorted_head({"score first": "label first", "label first": "score first"}[order], *two[0].tolist())
    if order == "score first":
        with pytest.raises(ModelError):
            decode([other])


def test_a_row_without_a_score_gives_its_box_to_nobody():
    head = sorted_head("score first", (0.0, 0.0, 0.1, 0.1, 0.0, 1), (0.5, 0.5, 1.0, 1.0, 0.75, 2))
    regions = decoder((1, 2, 6), "nms", confidence=0.0)([head]).regions
    assert [(region.label, region.score, region.x) for region in regions] == [("stain", 0.75, 0.5)]


def test_a_label_beyond_the_list_is_refused():
    with pytest.raises(ModelError, match=r"the model tells class 3, output.labels has 3"):
        decoder((1, 1, 6), "nms")([sorted_head("score first", (0, 0, 1, 1, 0.5, 3))])
