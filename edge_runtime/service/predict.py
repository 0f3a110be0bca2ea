"""Picture files judged one by one, outside the line: what `predict` prints, and what scripts read."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_runtime.core.config import EdgeConfig, ModelConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.messages import Prediction
from edge_runtime.core.picture import PictureError, decode_picture
from edge_runtime.decision.policy import Policy
from edge_runtime.inference.probe import probe
from edge_runtime.lines.vision_model import VisionModel, open_vision_model
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.store import open_bundle
from edge_runtime.service.wiring import open_store, policy

MAX_FILE_BYTES = 256 << 20


class Predictor:
    """One model with the thresholds that go with it.

    reference: NAME, NAME@VERSION or a bundle folder; empty takes the station's model. The station's thresholds hold for
    the station's model, every other one brings its own. Raises UsageError when the model cannot be used.
    """

    def __init__(self, cfg: EdgeConfig, reference: str = "") -> None:
        wanted = reference or cfg.model.name
        try:
            bundle = open_bundle(wanted, open_store(cfg))
            if "/" in wanted:
                _vouch(bundle, cfg.model)
            with native_noise_hidden():
                self.model: VisionModel = open_vision_model(bundle, cfg.model)
        except ModelError as err:
            raise UsageError(f"model {wanted!r} cannot be used: {err}") from err
        thresholds = bundle.manifest.thresholds
        is_stations = bundle.manifest.name == cfg.model.name.partition("@")[0]
        self.policy = (
            policy(cfg.decision, thresholds) if is_stations else Policy(thresholds.accept_below, thresholds.reject_at)
        )

    def file(self, path: str | Path) -> dict[str, Any]:
        """One entry of `predict --json`. A file that cannot be judged gives `verdict` null and `error`."""
        entry: dict[str, Any] = {"file": str(path), "model": self.model.label}
        started = time.perf_counter()
        try:
            image = decode_picture(_read(Path(path)))
            read_ms = (time.perf_counter() - started) * 1e3
            prediction = self.model(image)
        except (PictureError, ModelError) as err:
            nothing: dict[str, Any] = {"verdict": None, "score": None, "scores": {}, "regions": [], "timings_ms": {}}
            return entry | nothing | {"error": str(err)}
        return entry | self._said(prediction, read_ms)

    def _said(self, prediction: Prediction, read_ms: float) -> dict[str, Any]:
        verdict, reason = self.policy.judge(prediction)
        return {
            "verdict": str(verdict),
            "score": round(prediction.score, 6),
            "scores": {label: round(score, 6) for label, score in prediction.scores.items()},
            "regions": [
                {key: round(getattr(region, key), 5) for key in ("x", "y", "w", "h", "score")} | {"label": region.label}
                for region in prediction.regions
            ],
            "timings_ms": _rounded({"read": read_ms, **prediction.timings_ms}),
            "reason": reason,
        }


def _vouch(bundle: Bundle, cfg: ModelConfig) -> None:
    """Load a model from outside the store in a child first: digests only say that it is as its maker sealed it."""
    report = probe(bundle.model_path, delegate=cfg.delegate, runtime=cfg.runtime, seconds=0.0)
    if report.problem:
        raise ModelError(report.problem)


@contextlib.contextmanager
def native_noise_hidden() -> Iterator[None]:
    """Hide what a TFLite runtime prints on stderr while it loads ("INFO: Created ..."). For one-thread programs only:
    for that moment stderr is nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise PictureError("a folder; name the files in it")
        if not path.is_file():
            raise PictureError("not a plain file" if path.exists() else "no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(f"larger than {MAX_FILE_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as err:
        raise PictureError(f"cannot be read ({err.strerror or err})") from err


def _rounded(timings: Mapping[str, float]) -> dict[str, float]:
    return {name: round(ms, 4) for name, ms in timings.items()}
