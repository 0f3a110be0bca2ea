"""Files of unusual forms: sealed as `pack` seals them, they say of a picture what the raw interpreter says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.modelstore.bundle import MODEL, seal_bundle
from edge_runtime.packing.answers import Desk, Told
from edge_runtime.packing.tables import first_table
from edge_runtime.predictors.vision import open_vision_model
from tests.packing.conftest import looked_at
from tests.packing.test_plan import planned
from tests.support import spot_models
from tests.support.tflite_files import Model

SIDE = spot_models.SIDE
TOLD = Told(labels=("clean", "spot"), labels_from="names", defects=("spot",), normalise="0..1")
STEPS = {np.int8: (-128, 127), np.uint8: (0, 255), np.int16: (-32768, 32767)}


def int16_activations() -> bytes:
    """16-bit values all the way (a16w8): each label's weights look at another half of the picture."""
    model = Model()
    graph = model.graph()
    image = graph.input("image", (1, SIDE, SIDE, 3), "int16", scale=1 / 32768)
    flat = graph.tensor("flat", (1, SIDE * SIDE * 3), "int16", scale=1 / 32768)
    shape = graph.constant("shape", np.array([1, SIDE * SIDE * 3], np.int32))
    graph.add("RESHAPE", [image, shape], [flat], newShape=[1, SIDE * SIDE * 3])
    weights = np.zeros((2, SIDE * SIDE * 3), np.int8)
    weights[0, : SIDE * SIDE], weights[1, SIDE * SIDE :] = 3, -2
    stored = graph.constant("w", weights, scale=1 / 4096)
    logits = graph.tensor("logits", (1, 2), "int16", scale=16 / 32768)
    graph.add("FULLY_CONNECTED", [flat, stored, -1], [logits])
    shares = graph.tensor("shares", (1, 2), "int16", scale=1 / 32768)
    graph.add("LOGISTIC", [logits], [shares])
    graph.outputs(shares)
    return model.bytes()


FILES = {
    "int16 activations": int16_activations(),
    "int16 input": spot_models.classifier(dtype="int16"),
    "dynamic range": spot_models.classifier(hybrid=True),
    "several signatures": spot_models.two_signatures(),
    "without names": spot_models.classifier(unnamed=True),
    "batch of -1": spot_models.classifier(open_batch=True),
    "uint8 around 128": spot_models.classifier(dtype="uint8"),
    "planes": spot_models.classifier(planar=True),
}


@pytest.mark.parametrize("form", FILES)
def test_an_exotic_file_answers_as_the_raw_interpreter_does(form: str, tmp_path: Path) -> None:
    signature = "judge" if form == "several signatures" else ""
    told = replace(TOLD, signature=signature)
    file = tmp_path / MODEL
    file.write_bytes(FILES[form])
    desk = Desk()
    plan = planned(file, told, desk)
    facts = looked_at(file, signature)
    bundle = seal_bundle(tmp_path, first_table("exotic", "1", told, facts, plan, desk))
    with native_noise_hidden():
        model = open_vision_model(bundle)
    scores = []
    for spots in ((), ((16, 32),)):
        picture = spot_models.picture(*spots)
        said = model(picture)
        assert said.scores == pytest.approx(dict(zip(TOLD.labels, raw_shares(file, signature, picture), strict=True)))
        assert said.score == said.scores["spot"]
        scores.append(said.score)
    assert abs(scores[1] - scores[0]) > 1e-3


def raw_shares(file: Path, signature: str, picture: np.ndarray[Any, Any]) -> list[float]:
    """Of each label, by nothing but the runtime and the numbers in the file."""
    raw = Interpreter(model_path=str(file))
    raw.allocate_tensors()
    real = (picture / np.float32(255))[None]
    if signature:
        (shares,) = raw.get_signature_runner(signature)(image=real.astype(np.float32)).values()
        return [float(share) for share in shares[0]]
    (given,), (told,) = raw.get_input_details(), raw.get_output_details()
    if given["shape"][1] == 3:
        real = real.transpose(0, 3, 1, 2)
    if given["dtype"] is not np.float32:
        scale, zero = given["quantization"]
        real = np.clip(np.rint(real / scale) + zero, *STEPS[given["dtype"]])
    raw.set_tensor(given["index"], np.ascontiguousarray(real.astype(given["dtype"])))
    raw.invoke()
    shares = raw.get_tensor(told["index"])[0].astype(np.float64)
    if told["dtype"] is not np.float32:
        shares = (shares - told["quantization"][1]) * told["quantization"][0]
    return [float(share) for share in shares]
