"""Files with several signatures and with sizes left open, against the raw interpreter bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.engine import Engine
from tests.support import spot_models
from tests.support.tflite_files import Model


@pytest.fixture
def file(tmp_path: Path):
    def write(content: bytes) -> Path:
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        return path

    return write


def some_picture() -> np.ndarray:
    return spot_models.picture((16, 24)).astype(np.float32)[None] / 255


@pytest.mark.parametrize("key", ["plain", "judge"])
def test_the_chosen_signature_runs(file, key):
    path = file(spot_models.two_signatures())
    engine = Engine(path, signature=key)
    raw = Interpreter(model_path=str(path)).get_signature_runner(key)(image=some_picture())
    engine.warm_up(2)
    (ours,) = engine.invoke(some_picture())
    (theirs,) = raw.values()
    assert ours.tobytes() == theirs.tobytes()
    assert ours.shape == engine.outputs[0].shape == (1, 2)


def test_a_signature_that_is_not_there_is_told_with_those_that_are(file):
    with pytest.raises(ModelError, match=r"no signature 'score' \(found: plain, judge\)"):
        Engine(file(spot_models.two_signatures()), signature="score")
    with pytest.raises(ModelError, match=r"no signature 'score' \(found: none\)"):
        Engine(file(spot_models.classifier()), signature="score")


def open_sized() -> bytes:
    """An average over a picture of any size."""
    model = Model()
    graph = model.graph()
    image = graph.input("image", (1, 1, 1, 3), open_sizes=(-1, -1, -1, 3))
    axes = graph.constant("axes", np.array([1, 2], np.int32))
    graph.outputs(graph.then("MEAN", image, (1, 3), axes))
    return model.bytes()


def test_sizes_that_the_file_leaves_open_become_those_asked_for(file):
    path = file(open_sized())
    engine = Engine(path, input_shape=(1, 64, 64, 3))
    assert engine.inputs[0].shape == (1, 64, 64, 3)
    raw = Interpreter(model_path=str(path))
    raw.resize_tensor_input(0, (1, 64, 64, 3))
    raw.allocate_tensors()
    raw.set_tensor(0, some_picture())
    raw.invoke()
    expected = raw.get_tensor(raw.get_output_details()[0]["index"])
    assert engine.invoke(some_picture())[0].tobytes() == expected.tobytes()


def test_a_size_that_the_file_fixes_is_not_changed(file):
    engine = Engine(file(spot_models.classifier(open_batch=True)), input_shape=(1, 64, 64, 3))
    assert engine.inputs[0].shape == (1, 64, 64, 3)
    with pytest.raises(ModelError):
        Engine(file(spot_models.classifier(open_batch=True)), input_shape=(1, 32, 32, 3))
    assert Engine(file(spot_models.classifier()), input_shape=(1, 32, 32, 3)).inputs[0].shape == (1, 64, 64, 3)
