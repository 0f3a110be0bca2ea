"""Teach the box what its machine sounds like when all is well: recordings in, a sealed model in the store out.

    recordings of a normal shift -> rows -> autoencoder and distances -> bundle of kind `sound_anomaly`

DIR holds the recordings, or the folders `normal/` and, where there is any, `abnormal/`. Abnormal sound never teaches
and sets no limit: it is judged afterwards, to say how well the model does. It is installed only after a child process
has loaded the network and the model has said about its golden sound what was said here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.share_interval import share_interval
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.inference.probe import probe
from edge_runtime.learning.sound_bundle import check_golden_sound, write_bundle
from edge_runtime.learning.sound_files import Recording, Recordings, load_recordings
from edge_runtime.learning.sound_fit import FEWEST_WINDOWS, Progress, fit_sound, rank_auc
from edge_runtime.learning.sound_rows import ROW_HOPS, ROW_S, rows_within
from edge_runtime.learning.versions import first_of, next_version
from edge_runtime.modelstore.provenance import MADE_HERE
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.sound import SoundModel, open_sound_model

log = logging.getLogger(__name__)

WINDOW_S = 10.0
OVER_ALARM = 0.01
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class SoundReport:
    """What was learnt from how much. limit_interval: 95 % interval of the limit, on the score's scale, where it is 0.5.

    over_alarm: share of normal windows that the limit can promise; with n windows never less than 1 / (n + 1).
    evaluation: None where there was no abnormal sound.
    """

    model: str
    folder: str
    digest: str
    recordings: int
    seconds_of_sound: float
    windows: int
    window_s: float
    skipped: tuple[str, ...]
    over_alarm: float
    limit_interval: tuple[float, float]
    held_back_over: int
    held_back_over_interval: tuple[float, float]
    evaluation: dict[str, Any] | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        about = asdict(self)
        for key in ("limit_interval", "held_back_over_interval"):
            about[key] = [round(end, 4) for end in about[key]]
        return about | {"seconds": round(self.seconds, 2), "seconds_of_sound": round(self.seconds_of_sound, 1)}


def learn_sound(
    folder: Path,
    name: str,
    store: ModelStore,
    cfg: EdgeConfig | None = None,
    *,
    window_s: float = WINDOW_S,
    over_alarm: float = OVER_ALARM,
    progress: Progress | None = None,
) -> SoundReport:
    """Learn from the recordings in `folder` and install the model as `name`; a known name gets a further version.

    Raises UsageError for too little or unusable sound or name, ModelError when the model fails its own check.
    """
    started = time.perf_counter()
    cfg = cfg or EdgeConfig()
    version = next_version(name, store, Kind.SOUND_ANOMALY)
    sounds = load_recordings(folder, progress)
    window_rows = rows_within(window_s)
    windows = sum(len(one.rows) // window_rows for one in sounds.normal)
    if windows < FEWEST_WINDOWS:
        raise UsageError(
            f"{folder}: {sum(one.seconds for one in sounds.normal):.0f} s of usable normal sound make {windows} "
            f"windows of {window_s:g} s, at least {FEWEST_WINDOWS} are needed",
            f"record more{first_of(sounds.skipped)}",
        )
    rows = [one.rows for one in sounds.normal]
    with store.workshop() as work, native_noise_hidden():
        lesson = fit_sound(rows, row_hops=ROW_HOPS, window_rows=window_rows, over_alarm=over_alarm, progress=progress)
        bundle = write_bundle(work / name, name, version, sounds, lesson, time.perf_counter() - started)
        if problem := probe(bundle.model_path, seconds=0.0).problem or check_golden_sound(bundle, cfg.model):
            raise ModelError(f"{bundle.label} was learnt but does not pass its check: {problem}")
        installed = store.install(bundle, came=MADE_HERE)
        model = open_sound_model(installed, cfg.model)
    memory = lesson.memory
    log.info("sound learnt model=%s windows=%d over=%d", installed.label, lesson.windows, lesson.over)
    return SoundReport(
        model=installed.label,
        folder=str(installed.folder),
        digest=installed.digest,
        recordings=len(sounds.normal),
        seconds_of_sound=sum(one.seconds for one in sounds.normal),
        windows=lesson.windows,
        window_s=window_rows * ROW_S,
        skipped=tuple(sounds.skipped),
        over_alarm=round(memory.over_alarm, 5),
        limit_interval=memory.interval,
        held_back_over=lesson.over,
        held_back_over_interval=share_interval(lesson.over, lesson.windows),
        evaluation=evaluate(model, memory.held_back, sounds),
        seconds=time.perf_counter() - started,
    )


def evaluate(model: SoundModel, held_back: np.ndarray[Any, Any], sounds: Recordings) -> dict[str, Any] | None:
    """Abnormal recordings under the finished model against held-back normal windows; None where there are none."""
    if not sounds.abnormal:
        return None
    scores = {one.name: judge_recording(model, one) for one in sounds.abnormal}
    said = np.array([score for score in scores.values() if score is not None])
    if not said.size:
        return None
    rng = np.random.default_rng(1)
    again = [rank_auc(rng.choice(held_back, len(held_back)), rng.choice(said, len(said))) for _ in range(RESAMPLES)]
    low, high = np.quantile(again, (0.025, 0.975))
    found = int((said >= 0.5).sum())
    return {
        "abnormal": len(said),
        "auc": round(rank_auc(held_back, said), 4),
        "auc_interval": [round(float(low), 4), round(float(high), 4)],
        "found": found,
        "found_interval": [round(end, 4) for end in share_interval(found, len(said))],
        "scores": {name: None if score is None else round(score, 4) for name, score in scores.items()},
    }


def judge_recording(model: SoundModel, recording: Recording) -> float | None:
    """The score of its worst window; None when it is too short."""
    try:
        return model.judge(recording.rows).score
    except ModelError:
        return None
