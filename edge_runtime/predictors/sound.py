"""One bundle of kind `sound_anomaly` put to work: a clip of machine sound in, how abnormal it is out.

Used by the line, by `predict` and by `data learn-sound`, so that all of them say the same about the same sound. A clip
longer than the window is judged in windows that move by HOP_S; its score is the worst of them, and the spans over the
limit are its regions: x and w along the clip's time, y and h along the mel axis with the high bands on top.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import AudioInput, Kind, MelSpec
from edge_runtime.core.messages import Prediction, Region
from edge_runtime.features.mel import MelStream, Pcm, as_float, log_mel, mel_edges_hz
from edge_runtime.features.sound_validity import REASON, SoundCheck
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.sound_memory import F32, Judgement, SoundMemory, mean_rows
from edge_runtime.inference.tensors import check_scales
from edge_runtime.media.sound_file import resample
from edge_runtime.modelstore.bundle import MEMORY, MODEL, Bundle

LABEL = "abnormal"
HOP_S = 1.0
SHORTEST = 0.5  # of a window; the mean of less sound swings more than the limit allows for
HOT = 0.5  # of the hottest band's distance: as far as a region reaches along the mel axis

Rows = F32


def open_sound_model(bundle: Bundle, cfg: ModelConfig | None = None) -> SoundModel:
    """Load a bundle, check it against its manifest, warm it up. Raises ModelError in one sentence."""
    cfg = cfg or ModelConfig()
    try:
        if bundle.manifest.kind is not Kind.SOUND_ANOMALY:
            raise ModelError(f"it is of kind {bundle.manifest.kind}, it does not judge machine sound")
        if MEMORY not in bundle.manifest.files:
            raise ModelError(f"{MEMORY} is not in manifest.toml", "learn again")
        engine = Engine(bundle.model_path, cfg.threads, cfg.delegate, cfg.runtime, bundle.manifest.files[MODEL])
        check_scales(*engine.inputs, *engine.outputs)
        model = SoundModel(bundle, engine)
    except ModelError as err:
        raise ModelError(f"{bundle.label}: {err.what}", err.fix) from err
    engine.warm_up(cfg.warm_up)
    return model


class SoundModel:
    """Clip in, prediction out. For one thread at a time. engine: one row (1, bands) in, the rebuilt row out."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.label = bundle.label
        self.bundle = bundle
        self.engine = engine
        self.audio, self.mel = _audio(bundle.manifest.audio)
        self.memory = SoundMemory.load(bundle.folder / MEMORY)
        shapes = [tensor.shape for tensor in (*engine.inputs, *engine.outputs)]
        if shapes != [(1, self.mel.bands)] * 2 or len(self.memory.mean) != self.mel.bands:
            raise ModelError(f"model {shapes}, memory of {len(self.memory.mean)} and mel of {self.mel.bands} bands")
        self.row_s = self.memory.row_hops * self.mel.hop_ms / 1000.0
        self.window_s = self.memory.window_rows * self.row_s
        self._hop = max(1, round(HOP_S / self.row_s))
        self._shortest = max(1, round(SHORTEST * self.memory.window_rows))

    def __call__(self, pcm: Pcm, rate_hz: int) -> Prediction:
        """pcm: mono, int16 or float32 with full scale 1.0, any rate. Raises ModelError when it cannot be judged."""
        t0 = time.perf_counter_ns()
        sound = as_float(pcm)
        refuse_invalid(sound, rate_hz)
        seconds = len(sound) / rate_hz
        if seconds < self._shortest * self.row_s:
            raise ModelError(f"{seconds:.1f} s of sound, at least {self._shortest * self.row_s:.1f} s are judged")
        frames = log_mel(resample(sound, rate_hz, self.audio.rate_hz), self.audio.rate_hz, self.mel)
        return self.judge(mean_rows(frames, self.memory.row_hops), t0)

    def judge(self, rows: Rows, started_ns: int | None = None) -> Prediction:
        """The same for rows of sound, (n, bands), as RowStream makes them."""
        t0 = time.perf_counter_ns() if started_ns is None else started_ns
        t1 = time.perf_counter_ns()
        units = self.memory.in_spreads(rows)
        rebuilt = self.rebuild(units)
        t2 = time.perf_counter_ns()
        judgement = self.memory.judge(units, rebuilt, self._hop, self._shortest)
        worst = int(judgement.score.argmax())
        return Prediction(
            model=self.label,
            score=float(judgement.score[worst]),
            scores={LABEL: float(judgement.score[worst]),
                    **{name: float(scores.max()) for name, scores in judgement.by_scorer.items()}},
            regions=self._regions(judgement, len(rows)),
            timings_ms={"prepare": (t1 - t0) / 1e6, "invoke": (t2 - t1) / 1e6,
                        "decode": (time.perf_counter_ns() - t2) / 1e6},
        )  # fmt: skip

    def rebuild(self, units: F32) -> F32:
        """What the autoencoder makes of each row, both in units of spread."""
        source, target = self.engine.inputs[0], self.engine.outputs[0]
        stored = source.quantise(units)
        if not len(stored):
            return units
        return np.concatenate([target.dequantise(self.engine.invoke(row[None])[0]) for row in stored])

    def frequencies(self, region: Region) -> tuple[float, float]:
        """Lowest and highest frequency of a region, Hz."""
        edges = mel_edges_hz(self.mel)
        last = round((1.0 - region.y) * self.mel.bands)
        first = round((1.0 - region.y - region.h) * self.mel.bands)
        return float(edges[first]), float(edges[min(last + 1, len(edges) - 1)])

    def _regions(self, judgement: Judgement, rows: int) -> tuple[Region, ...]:
        """Spans of windows over the limit, joined where they touch, with the bands that stood out most in them."""
        found: list[Region] = []
        count = min(self.memory.window_rows, rows)
        over = np.flatnonzero(judgement.score >= 0.5)
        for run in np.split(over, np.flatnonzero(np.diff(judgement.starts[over]) > count) + 1) if len(over) else ():
            first, last = int(judgement.starts[run[0]]), int(judgement.starts[run[-1]]) + count
            bands = _hot_bands(judgement.distances[run].max(axis=0))
            found.append(
                Region(
                    x=first / rows,
                    y=1.0 - (bands[1] + 1) / self.mel.bands,
                    w=(last - first) / rows,
                    h=(bands[1] + 1 - bands[0]) / self.mel.bands,
                    score=float(judgement.score[run].max()),
                    label=LABEL,
                )
            )
        return tuple(found)


class RowStream:
    """Rows of sound from chunks of any length. The same rows as of the whole sound."""

    def __init__(self, model: SoundModel) -> None:
        self._hops = model.memory.row_hops
        self._stream = MelStream(model.audio.rate_hz, model.mel)
        self._rest = np.empty((0, model.mel.bands), np.float32)

    def __call__(self, pcm: Pcm) -> Rows:
        """The rows that this chunk completed."""
        frames = np.concatenate([self._rest, self._stream(pcm)])
        rows = mean_rows(frames, self._hops)
        self._rest = frames[len(rows) * self._hops :]
        return rows

    def reset(self) -> None:
        """What comes next is not the continuation of what was."""
        self._stream.reset()
        self._rest = self._rest[:0]


class InvalidSound(ModelError):
    """This sound shows nothing of the machine: look at the microphone."""


def refuse_invalid(sound: NDArray[np.float32], rate_hz: int) -> None:
    """Raise InvalidSound where a second of the sound shows nothing: that must never become "nothing abnormal"."""
    check = SoundCheck()
    check(sound, rate_hz)
    if why := check.why:
        raise InvalidSound(f"{REASON}: {why}")


def _audio(audio: AudioInput | None) -> tuple[AudioInput, MelSpec]:
    if audio is None or audio.mel is None or audio.front_end != "log_mel":
        raise ModelError("manifest.toml has no [audio] with front_end log_mel and [audio.mel]")
    return audio, audio.mel


def _hot_bands(distances: NDArray[np.float64]) -> tuple[int, int]:
    """First and last band around the hottest one that are at least HOT as far out."""
    low = high = int(distances.argmax())
    least = HOT * distances[low]
    while low > 0 and distances[low - 1] >= least:
        low -= 1
    while high < len(distances) - 1 and distances[high + 1] >= least:
        high += 1
    return low, high
