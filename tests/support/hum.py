"""A machine that hums, as a recording for a microphone and as the bundle that knows its sound."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from edge_runtime.core.manifest import AudioInput, Kind
from edge_runtime.features.mel import log_mel
from edge_runtime.inference.sound_memory import RANGE, mean_rows
from edge_runtime.learning.autoencoder_tflite import int8_tflite
from edge_runtime.learning.sound_fit import fit_sound
from edge_runtime.learning.sound_rows import MEL, ROW_HOPS, rows_within
from edge_runtime.modelstore.bundle import MEMORY, MODEL, seal_bundle

RATE_HZ = 16_000


def machine_hum(seed: int, seconds: float) -> np.ndarray:
    """int16, mono, 16 kHz."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = 0.02 * np.sin(2 * np.pi * 50 * t) + 0.004 * rng.normal(size=len(t))
    return np.rint(sound * 32768).astype(np.int16)


def write_hum(path: Path, seconds: float) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(machine_hum(0, seconds).astype("<i2").tobytes())


def learn_hum(folder: Path) -> str:
    """A sound bundle in a store: what such a machine sounds like. Its label."""
    folder.mkdir(parents=True)
    rows = [mean_rows(log_mel(machine_hum(seed, 6.2), RATE_HZ, MEL), ROW_HOPS) for seed in range(6)]
    lesson = fit_sound(rows, row_hops=ROW_HOPS, window_rows=rows_within(3.0))
    (folder / MODEL).write_bytes(int8_tflite(lesson.network, lesson.units, RANGE))
    lesson.memory.save(folder / MEMORY)
    table = {"name": folder.parent.name, "version": folder.name, "kind": Kind.SOUND_ANOMALY, "licence": "own",
             "audio": AudioInput(mel=MEL).model_dump(exclude_none=True)}  # fmt: skip
    return seal_bundle(folder, table).label
