"""What asking whether a picture shows anything costs: the same model with and without it, in turns, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_runtime.commissioning.bench_models import open_model
from edge_runtime.config.schema import CheckPictures, EdgeConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.lines.picture_watch import PictureWatch
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.predictors.vision import picture_gate

WARM_UP = 10


def gate_cost(bundle: Bundle, cfg: EdgeConfig, frames: np.ndarray, rounds: int) -> dict[str, Any]:
    """Milliseconds of one frame: `before` is the model alone, `after` with the gate first; `more` is the difference."""
    model, gate = open_model(bundle, cfg.model), picture_gate(bundle)
    watch = PictureWatch("bench", CheckPictures.ALL, monotonic_ns, lambda event: None)

    def after(frame: np.ndarray) -> None:
        watch.look(frame, gate)
        model(frame)

    took: dict[str, list[float]] = {"before": [], "after": [], "gate": []}
    for number in range(WARM_UP + rounds):
        frame = frames[number % len(frames)]
        turns: list[tuple[str, Callable[[np.ndarray], Any]]] = [("before", model), ("after", after)]
        turns.append(("gate", lambda picture: watch.look(picture, gate)))
        for name, call in turns if number % 2 else turns[::-1]:
            started = time.perf_counter()
            call(frame)
            if number >= WARM_UP:
                took[name].append((time.perf_counter() - started) * 1e3)
    found = {name: _percentiles(values) for name, values in took.items()}
    more = {key: round(found["after"][key] - found["before"][key], 4) for key in found["before"]}
    ratio = {key: round(found["after"][key] / found["before"][key], 3) for key in found["before"]}
    return {**found, "more": more, "ratio": ratio}


def _percentiles(values: list[float]) -> dict[str, float]:
    least, p50, p99 = np.percentile(values, (0, 50, 99))
    return {"min": round(float(least), 4), "p50": round(float(p50), 4), "p99": round(float(p99), 4)}
