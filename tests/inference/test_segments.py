"""Segmentation: scores and maps of every form, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind, OutputSpec
from edge_runtime.inference.decoders import make_decoder
from edge_runtime.inference.tensors import Tensor

F32 = np.dtype(np.float32)
LABELS = ("background", "dent", "scratch")


def decoder(tensor: Tensor, **spec):
    return make_decoder(Kind.SEGMENTATION, [tensor], OutputSpec(**{"labels": LABELS, "top_k": 2} | spec))


def logits() -> np.ndarray:
    """4x6 pixels of background, two of them scratch, one of them dent."""
    cells = np.zeros((1, 4, 6, 3), np.float32)
    cells[..., 0] = 4.0
    cells[0, 1, 2:4] = (0.0, 0.0, 4.0)
    cells[0, 3, 5] = (0.0, 4.0, 0.0)
    return cells


@pytest.mark.parametrize("is_planar", [False, True], ids=["labels last", "labels first"])
def test_a_pixel_belongs_to_the_label_with_the_largest_score(is_planar):
    cells = np.ascontiguousarray(logits().transpose(0, 3, 1, 2)) if is_planar else logits()
    finding = decoder(Tensor("out", F32, cells.shape), activation="softmax")([cells])
    sure = math.exp(4) / (math.exp(4) + 2)
    assert finding.scores == pytest.approx({"dent": (sure + (1 - sure) / 2) / 2, "scratch": sure})
    assert finding.score == pytest.approx(sure)
    places = {
        (region.label, round(region.x * 6), round(region.y * 4), round(region.w * 6)) for region in finding.regions
    }
    assert places == {("scratch", 2, 1, 2), ("dent", 5, 3, 1)}
    assert finding.heat is not None and finding.heat.shape == (4, 6)
    assert finding.heat[1, 2] == pytest.approx(sure)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(1, 4, 6), (1, 4, 6, 1)])
def test_a_map_of_label_numbers_counts_pixels(dtype, shape):
    numbers = logits().argmax(axis=3).reshape(shape).astype(dtype)
    finding = decoder(Tensor("out", np.dtype(dtype), shape), top_k=4)([numbers])
    assert finding.scores == {"dent": 0.25, "scratch": 0.5}
    assert {region.label for region in finding.regions} == {"dent", "scratch"}


def test_padding_is_not_judged():
    cells = logits()
    finding = decoder(Tensor("out", F32, cells.shape), activation="softmax")([cells], (0.0, 0.0, 1.0, 0.75))
    assert {region.label for region in finding.regions} == {"scratch"}
    assert finding.heat is not None and finding.heat[3].max() == 0.0


def test_only_what_counts_as_defective_is_reported():
    cells = logits()
    finding = decoder(Tensor("out", F32, cells.shape), activation="softmax", defect_labels=("dent",))([cells])
    assert set(finding.scores) == {"dent"} and {region.label for region in finding.regions} == {"dent"}


@pytest.mark.parametrize(
    ("tensor", "spec", "sentence"),
    [
        (Tensor("out", F32, (1, 4, 6, 5)), {}, "x 3 labels, or a map"),
        (Tensor("out", F32, (1, 4)), {}, "x 3 labels, or a map"),
        (Tensor("out", np.dtype(np.int32), (1, 4, 6)), {"activation": "softmax"}, "has no activation"),
        (Tensor("out", F32, (1, 4, 6, 1)), {"labels": ("background",)}, "counts as defective"),
    ],
)  # fmt: skip
def test_what_is_no_segmentation_is_refused(tensor, spec, sentence):
    with pytest.raises(ModelError, match=sentence):
        decoder(tensor, **spec)


def test_garbage_is_never_nothing_found():
    with pytest.raises(ModelError, match=r"a score is in 0..1; check output.activation"):
        decoder(Tensor("out", F32, (1, 4, 6, 3)))([logits()])
    with pytest.raises(ModelError, match=r"label number 7, output.labels has 3"):
        decoder(Tensor("out", np.dtype(np.int32), (1, 1, 2)))([np.array([[0, 7]], np.int32)[None]])
    with pytest.raises(ModelError, match="NaN"):
        decoder(Tensor("out", F32, (1, 1, 1, 3)))([np.full((1, 1, 1, 3), np.nan, np.float32)])
