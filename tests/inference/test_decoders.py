"""Output tensors to findings, with hand-made tensors: every dtype, order and kind of garbage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind, OutputSpec
from edge_runtime.inference.decoders import make_decoder
from edge_runtime.inference.findings import sigmoid
from edge_runtime.inference.heatmap import find_regions, hottest_mean, without_padding
from edge_runtime.inference.tensors import Tensor

F32, I8, U8 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.uint8)


def float_output(*shape: int, name: str = "out") -> Tensor:
    return Tensor(name, F32, shape)


def classifier(tensor: Tensor, **spec):
    return make_decoder(Kind.CLASSIFICATION, [tensor], OutputSpec(**spec))


def test_score_of_a_classifier_is_its_worst_defect_label():
    decode = classifier(float_output(1, 3), labels=("good", "dent", "scratch"), defect_labels=("dent", "scratch"))
    finding = decode([np.array([[0.6, 0.1, 0.3]], np.float32)])
    assert finding.score == pytest.approx(0.3)
    assert finding.scores == pytest.approx({"good": 0.6, "dent": 0.1, "scratch": 0.3})


def test_classifier_without_defect_labels_scores_its_best():
    decode = classifier(float_output(1, 2), labels=("cat", "dog"))
    assert decode([np.array([[0.2, 0.8]], np.float32)]).score == pytest.approx(0.8)


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
def test_quantised_classes_come_through_the_tensors_own_numbers(dtype):
    zero = -128 if dtype == I8 else 0
    decode = classifier(Tensor("out", dtype, (1, 2), (1 / 256,), (zero,)), labels=("a", "b"))
    stored = (np.array([[64, 192]], np.int16) + zero).astype(dtype)
    assert decode([stored]).scores == {"a": 0.25, "b": 0.75}


def test_logits_go_through_the_declared_activation():
    logits = np.array([[1.0, 3.0]], np.float32)
    soft = classifier(float_output(1, 2), labels=("a", "b"), activation="softmax")([logits])
    assert soft.scores["b"] == pytest.approx(1 / (1 + math.exp(-2)))
    single = classifier(float_output(1, 2), labels=("a", "b"), activation="sigmoid")([logits])
    assert single.scores["a"] == pytest.approx(1 / (1 + math.exp(-1)))
    with pytest.raises(ModelError, match=r"a score is in 0..1; check output.activation"):
        classifier(float_output(1, 2), labels=("a", "b"))([logits])


def test_of_a_thousand_classes_the_best_twenty_are_told():
    labels = tuple(f"c{n}" for n in range(1000))
    values = np.linspace(0, 1, 1000, dtype=np.float32)[None]
    finding = classifier(float_output(1, 1000), labels=labels, defect_labels=("c3",))([values])
    assert len(finding.scores) == 21
    assert finding.score == pytest.approx(3 / 999)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 7.0, -3.0])
def test_garbage_is_never_nothing_found(bad):
    values = np.array([[0.1, bad]], np.float32)
    with pytest.raises(ModelError):
        classifier(float_output(1, 2), labels=("a", "b"))([values])
    heat = np.zeros((1, 2, 2, 1), np.float32)
    heat[0, 1, 1, 0] = bad
    decode = make_decoder(Kind.HEATMAP, [float_output(1, 2, 2, 1)], OutputSpec(labels=("a",), top_k=4))
    if not math.isfinite(bad) or bad == 7.0:
        with pytest.raises(ModelError):
            decode([heat])


def test_outputs_of_another_shape_than_declared_are_refused():
    decode = classifier(float_output(1, 2), labels=("a", "b"))
    for wrong in (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.int8)):
        with pytest.raises(ModelError, match="declared"):
            decode([wrong])


@pytest.mark.parametrize(
    ("kind", "tensors", "spec", "sentence"),
    [
        (Kind.CLASSIFICATION, [float_output(1, 3)], {"labels": ("a", "b")}, "tells 3 classes, output.labels has 2"),
        (Kind.CLASSIFICATION, [float_output(1, 1)] * 2, {"labels": ("a",)}, "has one output"),
        (Kind.CLASSIFICATION, [float_output(1, 1)], {"labels": ("a",), "calibration": (1, 0)}, "is for heat maps"),
        (Kind.CLASSIFICATION, [float_output(1, 1)], {"labels": ("a",), "defect_labels": ("b",)}, "none of output"),
        (Kind.CLASSIFICATION, [Tensor("t", np.dtype(np.bytes_), (1,))], {"labels": ("a",)}, "scores are numbers"),
        (Kind.HEATMAP, [float_output(1, 4, 4, 2)], {"labels": ("a",)}, "2 channels, output.labels has 1"),
        (Kind.HEATMAP, [float_output(1, 4)], {"labels": ("a",)}, "a heat map is 1 x rows"),
        (Kind.HEATMAP, [float_output(1, 4, 4, 1)], {"labels": ("background",)}, "counts as defective"),
        (Kind.DETECTION, [float_output(1, 10, 4)], {"labels": ("a",)}, "TFLite_Detection_PostProcess"),
        (Kind.KEYWORD, [float_output(1, 3)], {"labels": ("a",)}, "does not judge pictures"),
    ],
)  # fmt: skip
def test_model_that_is_not_what_its_manifest_says_is_refused(kind, tensors, spec, sentence):
    with pytest.raises(ModelError, match=sentence):
        make_decoder(kind, tensors, OutputSpec(**spec))


# -- heat maps -----------------------------------------------------------------------------------------------------


def heat_decoder(shape=(1, 4, 6, 1), **spec):
    return make_decoder(Kind.HEATMAP, [float_output(*shape)], OutputSpec(**{"labels": ("scratch",)} | spec))


def test_heat_score_is_the_calibrated_mean_of_the_hottest_cells():
    heat = np.zeros((1, 4, 6, 1), np.float32)
    heat[0, 1, 2:5, 0] = 0.9, 0.6, 0.3
    assert heat_decoder(top_k=3)([heat]).score == pytest.approx(0.6)
    assert heat_decoder(top_k=1)([heat]).score == pytest.approx(0.9)
    calibrated = heat_decoder(top_k=3, calibration=(10.0, -5.0))([heat])
    assert calibrated.score == pytest.approx(sigmoid(1.0))
    assert calibrated.scores == {"scratch": calibrated.score}


def test_regions_are_touching_cells_the_hottest_first():
    heat = np.zeros((1, 4, 6, 1), np.float32)
    heat[0, 0, 0, 0] = heat[0, 1, 1, 0] = 0.7  # touch at a corner
    heat[0, 3, 4:6, 0] = 0.9, 0.8
    first, second = heat_decoder()([heat]).regions
    assert (first.x, first.y, first.w, first.h) == pytest.approx((4 / 6, 3 / 4, 2 / 6, 1 / 4))
    assert first.score == pytest.approx(0.9)
    assert first.label == "scratch"
    assert (second.x, second.y, second.w, second.h) == pytest.approx((0, 0, 2 / 6, 2 / 4))
    assert heat_decoder(region_at=0.95)([heat]).regions == ()


def test_heat_of_int8_logits_equals_that_of_floats():
    tensor = Tensor("heat", I8, (1, 4, 6, 1), (0.1,), (5,))
    stored = np.random.default_rng(0).integers(-128, 127, tensor.shape).astype(np.int8)
    spec = OutputSpec(labels=("scratch",), activation="sigmoid")
    finding = make_decoder(Kind.HEATMAP, [tensor], spec)([stored])
    expected = 1 / (1 + np.exp(-tensor.dequantise(stored)[0, :, :, 0]))
    assert np.allclose(finding.heat, expected, atol=1e-6)
    assert finding.score == pytest.approx(np.sort(expected.ravel())[-3:].mean(), abs=1e-6)


def test_many_channels_count_all_but_the_background():
    heat = np.zeros((1, 4, 6, 3), np.float32)
    heat[0, :, :, 0] = 1.0
    heat[0, 0, 0, 1], heat[0, 1, 1, 2] = 0.6, 0.8
    finding = heat_decoder((1, 4, 6, 3), labels=("background", "dent", "scratch"), top_k=1)([heat])
    assert finding.scores == pytest.approx({"dent": 0.6, "scratch": 0.8})
    assert [region.label for region in finding.regions] == ["scratch", "dent"]
    assert finding.heat.max() == pytest.approx(0.8)


def test_heat_in_the_padding_does_not_count():
    heat = np.ones((1, 4, 6, 1), np.float32)
    heat[0, 1:3] = 0.2
    finding = heat_decoder(top_k=1)([heat], (0.0, 0.25, 1.0, 0.75))
    assert finding.score == pytest.approx(0.2)
    assert finding.regions == ()
    assert without_padding(np.ones((4, 6), np.float32), (0.5, 0.5, 0.5001, 0.5001)).sum() == 1  # never nothing at all


def test_a_picture_of_noise_has_bounded_regions():
    heat = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    assert 0 < len(find_regions(heat, 0.9, "x")) <= 32


@given(st.integers(1, 40), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40))
def test_hottest_mean_is_the_mean_of_the_sorted_tail(count, values):
    heat = np.array(values, np.float32)
    assert hottest_mean(heat, count) == pytest.approx(float(np.sort(heat)[-count:].mean()), abs=1e-6)


# -- boxes ---------------------------------------------------------------------------------------------------------

BOXES = np.array([[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.2, 1.0], [0.9, 0.9, 0.1, 0.1]]], np.float32)
CLASSES = np.array([[1, 0, 1]], np.float32)
SCORES = np.array([[0.9, 0.6, 0.2]], np.float32)
COUNT = np.array([3], np.float32)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)], ids=["tf1", "tf2"])
def test_both_orders_of_detection_outputs_are_known(order):
    arrays = [(BOXES, CLASSES, SCORES, COUNT)[index] for index in order]
    tensors = [float_output(*array.shape) for array in arrays]
    finding = make_decoder(Kind.DETECTION, tensors, OutputSpec(labels=("dent", "scratch")))(arrays)
    assert finding.score == pytest.approx(0.9)
    first, second = finding.regions
    assert first.label == "scratch"
    assert (first.x, first.y, first.w, first.h) == pytest.approx((0.2, 0.1, 0.4, 0.4))
    assert (second.x, second.y, second.w, second.h) == (0, 0, 1, 1)  # clipped to the picture


def test_only_defect_labels_make_a_detection_defective():
    arrays = [BOXES, CLASSES, SCORES, COUNT]
    tensors = [float_output(*array.shape) for array in arrays]
    spec = OutputSpec(labels=("dent", "scratch"), defect_labels=("dent",), confidence=0.7)
    finding = make_decoder(Kind.DETECTION, tensors, spec)(arrays)
    assert finding.score == pytest.approx(0.6)  # the score does not depend on what is reported
    assert [region.label for region in finding.regions] == ["scratch"]


def test_detection_of_nothing_scores_zero_and_of_an_unknown_class_is_refused():
    arrays = [BOXES, CLASSES, SCORES, COUNT]
    decode = make_decoder(Kind.DETECTION, [float_output(*a.shape) for a in arrays], OutputSpec(labels=("a", "b")))
    assert decode([BOXES, CLASSES, SCORES, np.zeros(1, np.float32)]).score == 0.0
    with pytest.raises(ModelError, match=r"tells class 7, output.labels has 2"):
        decode([BOXES, CLASSES + 6, SCORES, COUNT])


ALL_ORDERS = list(itertools.permutations(range(4)))


@pytest.mark.parametrize("order", ALL_ORDERS, ids=lambda order: "".join("bcsn"[index] for index in order))
@pytest.mark.parametrize("labels", [("scratch",), ("scratch", "dent")], ids=len)
def test_a_detector_is_judged_by_its_scores_whatever_order_its_outputs_have(order, labels):
    scores = np.array([[0.95, 0.9, 0.0]], np.float32)
    arrays = [(BOXES, np.zeros((1, 3), np.float32), scores, np.array([2], np.float32))[index] for index in order]
    decode = make_decoder(Kind.DETECTION, [float_output(*a.shape) for a in arrays], OutputSpec(labels=labels))
    for _ in range(2):
        finding = decode(arrays)
        assert finding.score == pytest.approx(0.95) and finding.scores == {"scratch": pytest.approx(0.95)}


def test_which_list_holds_the_classes_is_settled_once_and_what_contradicts_it_is_refused():
    arrays = [BOXES, CLASSES, SCORES, COUNT]
    decode = make_decoder(Kind.DETECTION, [float_output(*a.shape) for a in arrays], OutputSpec(labels=("a", "b")))
    assert decode([BOXES, np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32), COUNT]).score == 1.0
    assert decode(arrays).score == pytest.approx(0.9)
    with pytest.raises(ModelError, match=r"class 0.9, and a class is a whole number"):
        decode([BOXES, SCORES, CLASSES, COUNT])
    again = make_decoder(Kind.DETECTION, [float_output(*a.shape) for a in arrays], OutputSpec(labels=("a", "b")))
    with pytest.raises(ModelError, match="a class is a whole number"):
        again([BOXES, SCORES, SCORES, COUNT])
