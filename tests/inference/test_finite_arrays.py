"""What was learnt is refused when any number in it is none: arrays and the numbers beside them, of both memories."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.anomaly import AnomalyModel, FittedView, Limit, View
from edge_runtime.inference.findings import Values
from edge_runtime.inference.sound_memory import Scorer, SoundMemory
from edge_runtime.inference.tensors import Tensor, check_scales

NOT_NUMBERS = [math.nan, math.inf, -math.inf]


def save_anomaly(path) -> None:
    ones = np.ones((2, 2, 3), np.float32)
    view = FittedView(View("v", 0, whiten=True), ones, ones, np.eye(3, dtype=np.float32))
    limit = Limit(2.0, 1.0)
    AnomalyModel((view,), limit, limit, 0.01, np.full(4, 0.1, np.float32), (0.4, 0.6)).save(path)


def save_sound(path) -> None:
    limit, ones = Limit(2.0, 1.0), np.ones(8, np.float32)
    scorers = tuple(Scorer(name, ones.astype(np.float64), 0.0, 1.0, limit) for name in ("mahalanobis", "autoencoder"))
    SoundMemory(4, 10, ones, ones, scorers, limit, 0.01, ones * np.float32(0.1), (0.4, 0.6)).save(path)


KINDS = {"anomaly": (save_anomaly, AnomalyModel), "sound": (save_sound, SoundMemory)}


def numbers(tree, at=()):
    if isinstance(tree, (bool, str)):
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, (*at, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from numbers(value, (*at, index))
    elif isinstance(tree, (int, float)):
        yield at


def spoilt(tree, at, value):
    tree = json.loads(json.dumps(tree))
    node = tree
    for step in at[:-1]:
        node = node[step]
    node[at[-1]] = value
    return tree


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_a_memory_must_be_one(tmp_path, kind, value):
    save, model = KINDS[kind]
    path = tmp_path / "memory.npz"
    save(path)
    model.load(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays["about"]))
    tried = 0
    for name, array in arrays.items():
        if name != "about":
            wrong = array.copy()
            wrong.ravel()[wrong.size // 2] = value
            np.savez(path, **(arrays | {name: wrong}))
            with pytest.raises(ModelError):
                model.load(path)
            tried += 1
    for at in numbers(about):
        np.savez(path, **(arrays | {"about": np.array(json.dumps(spoilt(about, at, value)))}))
        with pytest.raises(ModelError):
            model.load(path)
        tried += 1
    assert tried > 12


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, 0.0, -0.1])
def test_a_scale_that_makes_no_numbers_is_refused(scale):
    for dtype in (np.int8, np.uint8, np.int16):
        tensor = Tensor("out", np.dtype(dtype), (1, 2), (scale,), (0,))
        with pytest.raises(ModelError, match="quantisation scale"):
            Values(tensor, "none")
        with pytest.raises(ModelError, match="quantisation scale"):
            check_scales(Tensor("in", np.dtype(dtype), (1, 2)), tensor)
    with pytest.raises(ModelError):
        check_scales(Tensor("out", np.dtype(np.int8), (1, 2), (0.1, scale), (0, 0)))
