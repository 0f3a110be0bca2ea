"""The bundle that learning a sound makes: int8 network, memory, manifest, card, golden sound."""

from __future__ import annotations

import json
import statistics
import wave
from pathlib import Path

import numpy as np

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import EdgeError, ModelError
from edge_runtime.core.manifest import AudioInput, Kind
from edge_runtime.core.share_interval import share_interval
from edge_runtime.inference.sound_memory import F32, RANGE, SCORERS
from edge_runtime.learning.autoencoder import run_network
from edge_runtime.learning.autoencoder_tflite import int8_tflite
from edge_runtime.learning.sound_files import Recordings
from edge_runtime.learning.sound_fit import SoundLesson
from edge_runtime.learning.sound_rows import MEL, RATE_HZ, ROW_S
from edge_runtime.modelstore.bundle import CARD, MEMORY, MODEL, Bundle, seal_bundle
from edge_runtime.predictors.golden import EXPECTED
from edge_runtime.predictors.golden import FOLDER as GOLDEN
from edge_runtime.predictors.sound import LABEL
from edge_runtime.predictors.sound_golden import ask_golden_sound

HISTOGRAM_BINS = 20
LICENCE = "belongs to whoever owns the recordings"


def write_bundle(
    folder: Path, name: str, version: str, sounds: Recordings, lesson: SoundLesson, seconds: float
) -> Bundle:
    """Write and seal the bundle in `folder`, which must not exist. seconds: how long learning took."""
    folder.mkdir()
    memory = lesson.memory
    (folder / MODEL).write_bytes(int8_tflite(lesson.network, lesson.units, RANGE))
    memory.save(folder / MEMORY)
    (folder / CARD).write_text(_card(name, version, sounds, lesson), encoding="utf-8")
    counts, _ = np.histogram(memory.held_back, HISTOGRAM_BINS, (0.0, 1.0))
    low, high = share_interval(lesson.over, lesson.windows)
    rebuilt = run_network(lesson.network, lesson.units)[-1]
    table = {
        "name": name,
        "version": version,
        "kind": Kind.SOUND_ANOMALY,
        "title": f"Learnt from {sum(one.seconds for one in sounds.normal) / 60:.1f} min of normal sound",
        "licence": LICENCE,
        "training_data": sounds.digest,
        "audio": AudioInput(  # its loudness is about speech: how loud a machine is, is evidence and stays
            rate_hz=RATE_HZ,
            clip_ms=min(round(memory.window_rows * ROW_S * 1000), 60_000),
            mel=MEL,
        ).model_dump(exclude_none=True),
        "output": {"labels": (LABEL, *SCORERS), "defect_labels": (LABEL,)},
        "thresholds": {"accept_below": 0.5, "reject_at": 0.5, "over_reject": round(memory.over_alarm, 5)},
        "reference": {"score_histogram": tuple(round(float(count) / lesson.windows, 5) for count in counts)},
        "metrics": {
            "learnt.recordings": float(len(sounds.normal)),
            "learnt.windows": float(lesson.windows),
            "learnt.seconds": round(seconds, 2),
            "learnt.level_dbfs": round(statistics.fmean(one.level_dbfs for one in sounds.normal), 2),
            "heldback.over_alarm": round(lesson.over / lesson.windows, 4),
            "heldback.over_alarm_low": round(low, 4),
            "heldback.over_alarm_high": round(high, 4),
            "limit.low": round(memory.interval[0], 4),
            "limit.high": round(memory.interval[1], 4),
            "autoencoder.unexplained": round(float(np.mean(np.square(rebuilt - lesson.units))), 4),
        },
    }
    return _add_golden(seal_bundle(folder, table), sounds.normal[0].start)


def check_golden_sound(bundle: Bundle, cfg: ModelConfig | None = None) -> str:
    """Does the bundle still say of its golden sounds what it said? The problem in one sentence, empty when well."""
    try:
        expected: dict[str, dict[str, float]] = json.loads((bundle.folder / EXPECTED).read_text(encoding="utf-8"))
        said, _ = ask_golden_sound(bundle, sorted(expected), cfg)
    except (EdgeError, OSError, ValueError) as err:
        return str(err)
    for name, numbers in expected.items():
        worst = max(abs(said[name][key] - value) for key, value in numbers.items())
        if worst > bundle.manifest.golden_tolerance:
            return f"{name} differs by {worst:.3f} from what its maker saw"
    return ""


def _add_golden(bundle: Bundle, pcm: F32) -> Bundle:
    folder = bundle.folder / GOLDEN
    folder.mkdir()
    with wave.open(str(folder / "normal.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((pcm * 32768.0).round().clip(-32768, 32767).astype("<i2").tobytes())
    try:
        said, runtime = ask_golden_sound(bundle, ["normal.wav"])
    except ModelError:
        (folder / "normal.wav").unlink()  # the first recording is shorter than half a window
        said, runtime = ask_golden_sound(bundle, [])
    (bundle.folder / EXPECTED).write_text(f"{json.dumps(said, indent=1, sort_keys=True)}\n", encoding="utf-8")
    return seal_bundle(bundle.folder, bundle.manifest.model_copy(update={"runtime": runtime}))


def _card(name: str, version: str, sounds: Recordings, lesson: SoundLesson) -> str:
    memory = lesson.memory
    low, high = share_interval(lesson.over, lesson.windows)
    minutes = sum(one.seconds for one in sounds.normal) / 60
    return f"""# {name}@{version}: learnt from {minutes:.1f} minutes of normal sound

Says how unlike its normal sound a machine sounds (score 0..1, limit 0.5), in windows of
{memory.window_rows * ROW_S:.1f} s. It has never heard a fault and cannot name what is wrong. Its word is advice.

| | |
|---|---|
| recordings | {len(sounds.normal)}, {lesson.windows} windows |
| share of normal windows over the limit | {memory.over_alarm:.1%} is what so many windows can promise |
| held-back normal windows over it | {lesson.over} of {lesson.windows} (95 %: {low:.1%} to {high:.1%}) |
| 95 % interval of the limit, as scores | {memory.interval[0]:.3f} to {memory.interval[1]:.3f} |
| input | log-mel, {MEL.bands} bands to {MEL.high_hz:g} Hz, means of {ROW_S:.3f} s; level is not taken off |
| score | mean of an int8 autoencoder's and of a Mahalanobis score, both reported |

Every window was judged once by a model that had not heard its recording; those scores set the limit. Abnormal sound
did not teach and set nothing.

## Not for
Another machine, another microphone, another place or gain of it, another load than those of the recordings: learn
again. 1.5 dB of gain change is part of what was learnt, 3 dB is not. Record all that is normal: start, stop, idle, the
neighbour's press. The voices of people who happened to speak may be in `golden/normal.wav`.
"""
