"""Files judged one by one, outside the line: what `predict` prints, and what scripts read.

The bundle's kind says which files it judges: `Reader` turns a file into a prediction and says what its regions mean.
A kind of sound or speech is one more reader in READERS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_runtime.config.schema import CheckPictures, EdgeConfig, ModelConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.messages import Cause, Prediction, Region, Verdict
from edge_runtime.decision.policy import bundle_policy, station_policy
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.inference.probe import probe
from edge_runtime.media.picture import PictureError, decode_picture
from edge_runtime.media.sound_file import SoundError
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.store import open_bundle, open_store
from edge_runtime.predictors.model_choice import station_bundle
from edge_runtime.predictors.vision import open_vision_model, picture_gate

if TYPE_CHECKING:
    from edge_runtime.predictors.predict_speech import SpeechPredictor

MAX_FILE_BYTES = 256 << 20


class Predictor:
    """One model with the thresholds that go with it.

    reference: NAME, NAME@VERSION or a bundle folder; empty takes the station's model. The station's thresholds hold for
    the station's model, every other one brings its own. Raises UsageError when the model cannot be used.
    """

    def __init__(self, cfg: EdgeConfig, reference: str = "") -> None:
        wanted = reference or cfg.model.name
        try:
            store = open_store(cfg)
            bundle = open_bundle(reference, store) if reference else station_bundle(wanted, store)
            if "/" in wanted:
                _vouch(bundle, cfg.model)
            with native_noise_hidden():
                self._speech = _open_speech(bundle, cfg)
                pictures = partial(PictureReader, checks=cfg.camera.check_pictures)
                self._read = None if self._speech else READERS.get(bundle.manifest.kind, pictures)(bundle, cfg.model)
        except ModelError as err:
            raise UsageError(f"model {wanted!r} cannot be used: {err}") from err
        self.label = bundle.label
        is_stations = bundle.manifest.name == cfg.model.name.partition("@")[0]
        self.policy = station_policy(cfg.decision, bundle.manifest) if is_stations else bundle_policy(bundle.manifest)

    def file(self, path: str | Path) -> dict[str, Any]:
        """One entry of `predict --json`. A file that cannot be judged gives `verdict` null and `error`."""
        entry: dict[str, Any] = {"file": str(path), "model": self.label}
        if self._speech:
            return entry | self._speech.file(Path(path))
        assert self._read is not None
        notes: list[str] = []
        try:
            prediction, regions, read_ms = self._read(Path(path), notes)
        except InvalidPicture as err:
            return entry | _invalid(str(err), err.read_ms)
        except (PictureError, SoundError, ModelError) as err:
            nothing: dict[str, Any] = {"verdict": None, "score": None, "scores": {}, "regions": [], "timings_ms": {}}
            return entry | nothing | {"error": str(err).removeprefix(f"{Path(path)}: ")}
        return entry | self._said(prediction, regions, read_ms) | ({"note": "; ".join(notes)} if notes else {})

    def _said(self, prediction: Prediction, regions: list[dict[str, Any]], read_ms: float) -> dict[str, Any]:
        verdict, reason = self.policy.judge(prediction)
        return {
            "verdict": str(verdict),
            "score": round(prediction.score, 6),
            "scores": {label: round(score, 6) for label, score in prediction.scores.items()},
            "regions": regions,
            "timings_ms": _rounded({"read": read_ms, **prediction.timings_ms}),
            "reason": reason,
        }


class InvalidPicture(Exception):
    """A picture that shows nothing that could be judged; the text says why. No error: the part is unsure."""

    def __init__(self, why: str, read_ms: float) -> None:
        super().__init__(why)
        self.read_ms = read_ms


def _invalid(why: str, read_ms: float) -> dict[str, Any]:
    return {
        "verdict": str(Verdict.UNSURE),
        "score": None,
        "scores": {},
        "regions": [],
        "timings_ms": _rounded({"read": read_ms}),
        "reason": f"{Cause.INVALID_IMAGE}: {why}",
    }


class Reader(Protocol):
    def __call__(self, path: Path, notes: list[str]) -> tuple[Prediction, list[dict[str, Any]], float]:
        """The prediction, its regions as JSON, and how long reading took in ms. Raises PictureError, SoundError,
        ModelError, or InvalidPicture. notes: harmless damage that was passed over is added to it."""


class PictureReader:
    """Regions are x, y, w, h as fractions of the picture."""

    def __init__(self, bundle: Bundle, cfg: ModelConfig, checks: CheckPictures) -> None:
        self._model = open_vision_model(bundle, cfg)
        self._gate = None if checks is CheckPictures.OFF else picture_gate(bundle)

    def __call__(self, path: Path, notes: list[str]) -> tuple[Prediction, list[dict[str, Any]], float]:
        started = time.perf_counter()
        image = decode_picture(_read(path), notes)
        read_ms = (time.perf_counter() - started) * 1e3
        self._model.refuse_tiny(image)
        if self._gate and (fault := self._gate(image)):
            raise InvalidPicture(fault, read_ms)
        prediction = self._model(image)
        regions = [
            {key: round(getattr(region, key), 5) for key in ("x", "y", "w", "h", "score")} | {"label": region.label}
            for region in prediction.regions
        ]
        return prediction, regions, read_ms


class MachineSoundReader:
    """Regions are spans of time in seconds, with the frequencies in Hz that stood out in them."""

    def __init__(self, bundle: Bundle, cfg: ModelConfig) -> None:
        from edge_runtime.predictors.sound import open_sound_model

        self._model = open_sound_model(bundle, cfg)

    def __call__(self, path: Path, notes: list[str]) -> tuple[Prediction, list[dict[str, Any]], float]:
        from edge_runtime.features.sound_validity import REASON, SoundCheck
        from edge_runtime.media.sound_file import read_sound

        started, check = time.perf_counter(), SoundCheck()
        sound = read_sound(path, self._model.audio.rate_hz, heard=check)
        if why := check.why:
            raise SoundError(f"{REASON}: {why}")
        read_ms = (time.perf_counter() - started) * 1e3
        prediction = self._model(sound.pcm, sound.rate_hz)
        return prediction, [self._span(region, sound.seconds) for region in prediction.regions], read_ms

    def _span(self, region: Region, seconds: float) -> dict[str, Any]:
        low_hz, high_hz = self._model.frequencies(region)
        return {
            "start_s": round(region.x * seconds, 2),
            "end_s": round((region.x + region.w) * seconds, 2),
            "low_hz": round(low_hz),
            "high_hz": round(high_hz),
            "score": round(region.score, 5),
            "label": region.label,
        }


READERS: Mapping[Kind, Callable[[Bundle, ModelConfig], Reader]] = {Kind.SOUND_ANOMALY: MachineSoundReader}


def _open_speech(bundle: Bundle, cfg: EdgeConfig) -> SpeechPredictor | None:
    """What understands recordings of speech, where the bundle does; it gives transcripts instead of verdicts."""
    if bundle.manifest.kind is not Kind.KEYWORD:
        return None
    from edge_runtime.predictors.predict_speech import SpeechPredictor

    return SpeechPredictor(bundle, cfg)


def _vouch(bundle: Bundle, cfg: ModelConfig) -> None:
    """Load a model from outside the store in a child first: digests only say that it is as its maker sealed it."""
    report = probe(bundle.model_path, delegate=cfg.delegate, runtime=cfg.runtime, seconds=0.0)
    if report.problem:
        raise ModelError(report.problem)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise PictureError("a folder", "name the files in it")
        if not path.is_file():
            raise PictureError("not a plain file" if path.exists() else "no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(f"larger than {MAX_FILE_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as err:
        raise PictureError(f"cannot be read ({err.strerror or err})") from err


def _rounded(timings: Mapping[str, float]) -> dict[str, float]:
    return {name: round(ms, 4) for name, ms in timings.items()}
