"""What benches feed a line with: frames drawn before, and a bundle around whatever model is to be measured."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import EdgeError, ModelError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.messages import Prediction
from edge_runtime.lines.inspector import Model
from edge_runtime.modelstore.bundle import MODEL, Bundle, seal_bundle
from edge_runtime.predictors.vision import FeatureModel, open_engine, open_vision_model


def draw_frames(file: Path, count: int, width: int, height: int, seed: int = 1) -> NDArray[np.uint8]:
    """Phones of the simulated world, (count, height, width, 3) RGB, mapped from `file`.

    Drawn in a process of its own: what drawing keeps in memory is not the line's.
    """
    process = multiprocessing.get_context("spawn").Process(target=_draw, args=(file, count, width, height, seed))
    process.start()
    process.join()
    if process.exitcode:
        raise EdgeError(f"frames could not be drawn into {file}")
    return np.asarray(np.load(file, mmap_mode="r"))


def _draw(file: Path, count: int, width: int, height: int, seed: int) -> None:
    from edge_runtime.simulation.phone_scene import SceneConfig, render_phone

    cfg = SceneConfig(width=width, height=height)
    np.save(file, np.stack([render_phone(seed, index, cfg).image for index in range(count)]))


def as_bundle(model: Path, folder: Path) -> Bundle:
    """A plain 8-bit classifier as a bundle that decides something; the last class counts as defective.

    Only to measure with: what it says about a phone means nothing.
    """
    from edge_runtime.inference.engine import Engine

    engine = Engine(model)
    if len(engine.inputs) != 1 or len(engine.outputs) != 1 or not engine.inputs[0].is_byte:
        raise ModelError(f"{model}: wanted a classifier with one 8-bit picture in and one list of scores out")
    _, height, width, _ = engine.inputs[0].shape
    folder.mkdir(parents=True)
    shutil.copyfile(model, folder / MODEL)
    labels = [f"class-{number}" for number in range(engine.outputs[0].size)]
    return seal_bundle(
        folder,
        {
            "name": "".join(letter if letter.isalnum() else "-" for letter in model.stem.lower())[:60].strip("-"),
            "version": "0",
            "kind": "classification",
            "licence": "see the model",
            "input": {"width": width, "height": height, "fit": "stretch"},
            "output": {"labels": labels, "defect_labels": labels[-1:]},
        },
    )


def open_model(bundle: Bundle, cfg: ModelConfig) -> Model:
    """What a bench puts on the line: the bundle's own model, or a backbone with a decision of its own."""
    if bundle.manifest.kind is not Kind.FEATURES:
        return open_vision_model(bundle, cfg)
    engine = open_engine(bundle, cfg)
    engine.warm_up(cfg.warm_up)
    return _FeatureStage(bundle.label, FeatureModel(bundle, engine))


class _FeatureStage:
    """A backbone on the line: its features as they are, and their mean as a score, which means nothing.

    Not a taught model: its arithmetic on top is the same on both sides and would hide what the line costs.
    """

    def __init__(self, label: str, features: FeatureModel) -> None:
        self._label = label
        self._features = features

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        begun = time.perf_counter()
        maps = self._features(image)
        done_ms = (time.perf_counter() - begun) * 1e3
        score = feature_score(maps)
        return Prediction(self._label, score, {"mean": score}, timings_ms={"prepare": 0.0, "invoke": done_ms})


def feature_score(maps: Sequence[NDArray[np.float32]]) -> float:
    """Some number in 0..1 that needs every map's values."""
    return float(np.tanh(np.mean([abs(float(features.mean())) for features in maps])))
