"""A network that does its activation itself, in the forms that exporters give it, and bundles that ask for a second."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.modelstore.bundle import seal_bundle
from edge_runtime.modelstore.store import shipped_models
from edge_runtime.predictors.golden import add_golden, check_golden
from edge_runtime.predictors.vision import open_vision_model
from tests.data.tiny import make

LOGISTIC, RESHAPE, EXP, SUM, DIV = 14, 22, 47, 74, 42
RESHAPE_OPTIONS, EXP_OPTIONS, DIV_OPTIONS = 17, 33, 29


def operator(code, inputs, output, kind=0, slots=()):
    return make.Operator(code, inputs, (output,), kind, lambda b: make.table(b, list(slots)))


def network(end: str, factor: float = 10.0) -> bytes:
    """float (1, 8, 8, 3) -> (1, 3): `factor` x (mean of each channel - 0.3), then `end`."""
    tensor = make.Tensor
    tensors = [
        tensor("pixels", make.FLOAT32, (1, 8, 8, 3)),
        tensor("axes", make.INT32, (2,), np.array([1, 2], np.int32)),
        tensor("mean", make.FLOAT32, (1, 3)),
        tensor("factor", make.FLOAT32, (1,), np.array([factor], np.float32)),
        tensor("scaled", make.FLOAT32, (1, 3)),
        tensor("less", make.FLOAT32, (1,), np.array([-0.3 * factor], np.float32)),
        tensor("logits", make.FLOAT32, (1, 3)),
        tensor("a", make.FLOAT32, (1, 3)),
        tensor("b", make.FLOAT32, (1, 1)),
        tensor("c", make.FLOAT32, (1, 3)),
        tensor("last", make.INT32, (1,), np.array([1], np.int32)),
        tensor("shape", make.INT32, (2,), np.array([1, 3], np.int32)),
    ]
    add = 0
    steps = [
        operator(make.MEAN, (0, 1), 2, make.REDUCER_OPTIONS, [(0, "Bool", False)]),
        operator(make.MUL, (2, 3), 4, make.MUL_OPTIONS, [(0, "Int8", 0)]),
        operator(add, (4, 5), 6, 11, [(0, "Int8", 0)]),
    ]
    softmax = [(0, "Float32", 1.0)]
    ends = {
        "logits": ([], 6),
        "softmax": ([operator(make.SOFTMAX, (6,), 7, make.SOFTMAX_OPTIONS, softmax)], 7),
        "sigmoid": ([operator(LOGISTIC, (6,), 7)], 7),
        "softmax, reshaped": (
            [
                operator(make.SOFTMAX, (6,), 7, make.SOFTMAX_OPTIONS, softmax),
                operator(RESHAPE, (7, 11), 9, RESHAPE_OPTIONS),
            ],
            9,
        ),
        "softmax by hand": (
            [
                operator(EXP, (6,), 7, EXP_OPTIONS),
                operator(SUM, (7, 10), 8, make.REDUCER_OPTIONS, [(0, "Bool", True)]),
                operator(DIV, (7, 8), 9, DIV_OPTIONS, [(0, "Int8", 0)]),
            ],
            9,
        ),
        "softmax twice": (
            [
                operator(make.SOFTMAX, (6,), 7, make.SOFTMAX_OPTIONS, softmax),
                operator(make.SOFTMAX, (7,), 9, make.SOFTMAX_OPTIONS, softmax),
            ],
            9,
        ),
        "sigmoid, times one": (
            [operator(LOGISTIC, (6,), 7), operator(make.MUL, (7, 7), 9, make.MUL_OPTIONS, [(0, "Int8", 0)])],
            9,
        ),
    }
    more, output = ends[end]
    return make.model(tensors, [0], [output], [*steps, *more])


@pytest.fixture
def bundle_of(tmp_path, make_bundle):
    def make_one(end: str, activation: str, **manifest):
        path = tmp_path / "network.tflite"
        path.write_bytes(network(end))
        return make_bundle(
            "classification",
            model=path,
            folder=tmp_path / f"{end}-{activation}",
            output={"activation": activation, "labels": ["dent", "good", "other"], "defect_labels": ["dent"]},
            **manifest,
        )

    return make_one


ENDS = ["softmax", "sigmoid", "softmax, reshaped", "softmax by hand", "softmax twice", "sigmoid, times one"]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("end", ENDS)
def test_a_second_activation_is_refused_in_words(bundle_of, end, activation):
    with pytest.raises(ModelError, match=r"output\.activation = '\w+' would be a second one; set it to 'none'"):
        open_vision_model(bundle_of(end, activation))


@pytest.mark.parametrize("end", ENDS)
def test_an_activation_in_the_network_alone_is_right(bundle_of, end):
    open_vision_model(bundle_of(end, "none"))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_with_one_activation_are_right(bundle_of, activation):
    model = open_vision_model(bundle_of("logits", activation))
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert model(red).score > 0.9 > 0.1 > model(np.roll(red, 1, axis=2)).score


def test_a_heat_map_that_can_hold_0_to_1_only_is_given_no_sigmoid(make_bundle):
    with pytest.raises(ModelError, match="can hold 0 to 1 only"):
        open_vision_model(make_bundle("heatmap", output={"activation": "sigmoid"}))


def test_verify_refuses_what_the_line_would_refuse(bundle_of):
    assert "would be a second one" in check_golden(bundle_of("softmax", "softmax")).problem
    assert "a score is in 0..1; check output.activation" in check_golden(bundle_of("logits", "none")).problem
    assert check_golden(bundle_of("softmax", "none")).problem == ""


def test_golden_pictures_of_one_sort_are_told_to_prove_nothing(bundle_of):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    green = np.roll(red, 1, axis=2)
    bundle = bundle_of("softmax", "none")
    assert "not proven" in check_golden(add_golden(bundle, {"good": green})).remark
    report = check_golden(add_golden(bundle, {"good": green, "bad": red}))
    assert (report.accepted, report.rejected, report.remark, report.problem) == (1, 1, "", "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_golden_numbers_that_are_none_are_refused(bundle_of, number):
    bundle = add_golden(bundle_of("softmax", "none"), {"good": np.zeros((8, 8, 3), np.uint8)})
    expected = bundle.folder / "golden" / "expected.json"
    said = json.loads(expected.read_text())
    expected.write_text(json.dumps(said).replace(str(said["good.png"]["score"]), number, 1))
    assert "no number" in check_golden(seal_bundle(bundle.folder, bundle.manifest)).problem


def test_what_the_product_ships_is_refused_by_none_of_this(tmp_path):
    for name in ("scratch", "commands-embed", "commands-dscnn"):
        copy = tmp_path / name
        shutil.copytree(shipped_models() / name / "1", copy)
        from edge_runtime.modelstore.bundle import load_bundle

        report = check_golden(load_bundle(copy))
        assert report.problem == "" and report.remark == ""
