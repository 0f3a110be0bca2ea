"""A wake word in a stream: microWakeWord's int8 networks, which keep what they heard in their own state.

Each 30 ms they get three rows of 40 features and answer with one probability; the mean of the last five against the
model's threshold decides. The answers before the first five, and for the refractory time after a hit, do not count.
The models that `pymicro-wakeword` ships work as they are, and so does a bundle of kind `keyword` whose front end is
`micro`. State is forgotten by `reset`: after a gap in the sound the next chunk belongs to another stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.messages import AudioChunk
from edge_runtime.core.strict_json import parse_json
from edge_runtime.features.micro_frontend import FEATURES, RATE_HZ, MicroFrontEnd
from edge_runtime.inference.engine import Engine
from edge_runtime.modelstore.bundle import MODEL, Bundle

FRAME_MS = 10
MEAN_OF = 5  # probabilities; as in the makers' own runtime
REFRACTORY_S = 2.0  # one spoken wake word must not wake twice


class StreamingKeyword:
    """Sound in, in chunks of any length and in order; how sure it is out. For one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        word: str,
        least_score: float,
        *,
        mean_of: int = MEAN_OF,
        refractory_s: float = REFRACTORY_S,
    ) -> None:
        """Raises ModelError when the model is not such a network, DeviceError when the front end is missing."""
        self.engine = engine
        self.word = word
        self.least_score = least_score
        self._refractory_rows = round(refractory_s * 1000 / FRAME_MS)
        self._stride = _check_streaming(engine)
        self._front_end = MicroFrontEnd()
        self._recent: deque[float] = deque(maxlen=mean_of)
        self._rows: list[NDArray[np.float32]] = []
        self._rests_for = 0  # rows
        self._next_seq: int | None = None

    def __call__(self, chunk: AudioChunk) -> float:
        """How sure it is, 0..1, that its word ended in this chunk: at or above `least_score` it did.

        0 while it rests after that. A hole in the chunks' numbers starts a new stream. Raises ModelError on sound of
        another rate.
        """
        if chunk.rate_hz != RATE_HZ:
            raise ModelError(f"the wake word listens at {RATE_HZ} Hz, the microphone gives {chunk.rate_hz}")
        if self._next_seq is not None and chunk.seq != self._next_seq:
            self.reset()
        self._next_seq = chunk.seq + 1
        return self.hear(chunk.pcm)

    def hear(self, pcm: NDArray[np.int16]) -> float:
        """The same for bare samples."""
        loudest = 0.0
        for row in self._front_end(pcm):
            self._rests_for = max(self._rests_for - 1, 0)
            self._rows.append(row)
            if len(self._rows) < self._stride:
                continue
            self._recent.append(self._ask(np.stack(self._rows)))
            self._rows.clear()
            if self._rests_for or len(self._recent) < (self._recent.maxlen or 1):
                continue
            score = sum(self._recent) / len(self._recent)
            loudest = max(loudest, score)
            if score >= self.least_score:
                self._rests_for = self._refractory_rows
        return loudest

    def reset(self) -> None:
        """Start a new stream: the network, its front end and the last answers are forgotten."""
        self.engine.reset()
        self._front_end.reset()
        self._recent.clear()
        self._rows.clear()
        self._rests_for = 0
        self._next_seq = None

    def _ask(self, rows: NDArray[np.float32]) -> float:
        tensor = self.engine.inputs[0]
        (answer,) = self.engine.invoke(tensor.quantise(rows.reshape(tensor.shape)))
        return float(self.engine.outputs[0].dequantise(answer).ravel()[0])


def open_wake_word(
    bundle: Bundle, cfg: ModelConfig | None = None, least_score: float | None = None
) -> StreamingKeyword:
    """The wake word of a bundle: kind `keyword`, front end `micro`, one label. Raises ModelError.

    least_score: the station's own threshold; None takes the manifest's `thresholds.reject_at`.
    """
    manifest, cfg = bundle.manifest, cfg or ModelConfig()
    if manifest.kind is not Kind.KEYWORD or manifest.audio is None or manifest.audio.front_end != "micro":
        raise ModelError(f"{bundle.label} is no wake word: kind keyword with audio.front_end = 'micro' is needed")
    if manifest.output is None or len(manifest.output.labels) != 1:
        raise ModelError(f"{bundle.label}: a wake word has one label in [output]")
    engine = Engine(
        bundle.model_path,
        threads=cfg.threads,
        delegate=cfg.delegate,
        runtime=cfg.runtime,
        sha256=manifest.files[MODEL],
    )
    at = manifest.thresholds.reject_at if least_score is None else least_score
    return StreamingKeyword(engine, manifest.output.labels[0], at)


def open_micro_wake_word(
    settings: str | Path, cfg: ModelConfig | None = None, least_score: float | None = None
) -> StreamingKeyword:
    """A wake word in microWakeWord's own form: a JSON file, version 2, with the model beside it.

    The model is the one that the file names, or that is named like the file. least_score: the station's own threshold;
    None takes the file's. Raises ModelError when the file is something else.
    """
    settings, cfg = Path(settings), cfg or ModelConfig()
    try:
        table = parse_json(settings.read_text(encoding="utf-8"))
        micro = table["micro"]
        word, model = str(table["wake_word"]), str(table["model"])
        cutoff, mean_of = float(micro["probability_cutoff"]), int(micro["sliding_window_size"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelError(f"{settings}: not the settings of a microWakeWord model ({err!r})") from err
    _check_settings(settings, micro, model, cutoff, mean_of)
    path = settings.parent / model
    path = path if path.exists() else settings.with_suffix(".tflite")
    engine = Engine(path, threads=cfg.threads, delegate=cfg.delegate, runtime=cfg.runtime)
    return StreamingKeyword(engine, word, cutoff if least_score is None else least_score, mean_of=mean_of)


def _check_settings(settings: Path, micro: Mapping[str, Any], model: str, cutoff: float, mean_of: int) -> None:
    if Path(model).name != model:
        raise ModelError(f"{settings}: model {model!r} does not lie beside it")
    if micro.get("feature_step_size", FRAME_MS) != FRAME_MS:
        raise ModelError(f"{settings}: feature_step_size {micro['feature_step_size']}, only {FRAME_MS} ms is known")
    if not 0.0 < cutoff <= 1.0 or not 1 <= mean_of <= 100:
        raise ModelError(f"{settings}: probability_cutoff {cutoff} or sliding_window_size {mean_of} makes no sense")


def _check_streaming(engine: Engine) -> int:
    """How many rows of features the network takes at once."""
    shapes = [tensor.shape for tensor in engine.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 1 or shapes[0][2] != FEATURES:
        raise ModelError(
            f"{engine.path}: a streaming wake word takes 1 x rows x {FEATURES} at {RATE_HZ} Hz, not {shapes}"
        )
    if len(engine.outputs) != 1 or engine.outputs[0].size != 1:
        raise ModelError(f"{engine.path}: a wake word answers with one probability")
    return shapes[0][1]
