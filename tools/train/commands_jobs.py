"""The long jobs of `tools/train/commands`, each a plain function for a process of its own, with files in between.

One thread each: on two cores two single-threaded trainings finish sooner than one after the other with two threads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from commands_data import Amounts, load_shard, plan_lines, record_shard, speak_shard
from commands_judge import accuracy
from commands_words import COMMANDS, LABELS, OTHER
from numpy.typing import NDArray

from edge_runtime.core.manifest import AudioInput, MelSpec
from edge_runtime.features.mel import log_mel
from edge_runtime.features.speech_clip import fit_clip
from edge_runtime.inference.engine import Engine
from edge_runtime.predictors.keyword import SpeechEmbedding

if TYPE_CHECKING:
    import torch
    from commands_net import Teaching

Kind = Literal["embed", "dscnn"]
KINDS: tuple[Kind, ...] = ("embed", "dscnn")
MEL = MelSpec(window_ms=32.0, hop_ms=20.0, bands=40, low_hz=60.0, high_hz=7600.0, floor=1e-6)
AUDIO: dict[Kind, AudioInput] = {
    "embed": AudioInput(clip_ms=1600, pad_ms=300, loudness_dbfs=-20.0, front_end="speech_embedding"),
    "dscnn": AudioInput(clip_ms=1600, pad_ms=300, loudness_dbfs=-20.0, front_end="log_mel", mel=MEL),
}
CLIP_SAMPLES = 25_600
FORMANT_SHARE = 0.6  # of the espeak-ng rows take part in an epoch: voices that were people count for more
OTHER_SHARE = 0.45  # likewise of what is no word: there is more of it than of all words
TEACHER_SHARE = 0.9  # at 0.5, seeds differed by 52 points in spelled codes (36 to 88 % of 50), here by 22 (74 to 96)
CALIBRATION_ROWS = 400
MOST_WRONGLY_HEARD = 0.03  # of held-back near misses, sentences and noise may be taken for a command
THRESHOLD = 0.5  # of a calibrated score
SHARPNESS = 2.0  # smoothed labels and mixed rows make logits shy: clear human words read 0.5
SHIFT_STEP = 0.05


@dataclass(frozen=True, slots=True)
class Rows:
    """Features of one kind with what they are."""

    features: NDArray[np.float16]
    truth: NDArray[np.int64]
    sources: NDArray[np.str_]
    held_back: NDArray[np.bool_]


def speak(shard: int, shards: int, amounts: Amounts, work: Path) -> int:
    """Say one shard of all lines. Returns how many were said."""
    if (kept := work / f"said-{shard}.npz").exists():
        return len(load_shard(kept).labels)
    return speak_shard(plan_lines(amounts)[shard::shards], work / f"said-{shard}.npz")


def record(shard: int, amounts: Amounts, work: Path) -> int:
    """Send one shard through the world and keep what both front ends make of it. Returns the number of rows."""
    if (kept := work / f"rows-{shard}.npz").exists():
        return len(np.load(kept)["truth"])
    embed = SpeechEmbedding(
        Engine(work / "front_end" / "melspectrogram.tflite"),
        Engine(work / "front_end" / "embedding.tflite"),
        CLIP_SAMPLES,
    )
    recordings = record_shard(
        load_shard(work / f"said-{shard}.npz"), amounts.copies, np.random.default_rng(100 + shard)
    )
    clips = [fit_clip(recording.sound, AUDIO["dscnn"]) for recording in recordings]
    np.save(work / f"embed-{shard}.npy", np.stack([embed(clip) for clip in clips]).astype(np.float16))
    np.save(work / f"dscnn-{shard}.npy", np.stack([log_mel(clip, 16_000, MEL) for clip in clips]).astype(np.float16))
    np.savez(
        work / f"rows-{shard}.npz",
        truth=np.array([LABELS.index(recording.label) for recording in recordings]),
        sources=np.array([recording.source for recording in recordings]),
        held_back=np.array([recording.held_back for recording in recordings]),
    )
    return len(recordings)


def load_rows(kind: Kind, shards: int, work: Path) -> Rows:
    tables = [np.load(work / f"rows-{shard}.npz") for shard in range(shards)]
    return Rows(
        np.concatenate([np.load(work / f"{kind}-{shard}.npy") for shard in range(shards)]),
        np.concatenate([table["truth"] for table in tables]),
        np.concatenate([table["sources"] for table in tables]),
        np.concatenate([table["held_back"] for table in tables]),
    )


def teach(kind: Kind, seed: int, teachers: Sequence[int], epochs: int, shards: int, work: Path) -> Path:
    """Train one network and write its float and int8 files and what held-back voices say of them (JSON).

    The small network learns most of each answer from the embedding's, the mean of these seeds, which must be there:
    that one was pretrained on people, and what it finds alike is alike to people. The mean of several is more right
    than each of them, and pupils of one teacher differ less.
    """
    path = work / f"{kind}-{seed}.json"
    if path.exists():
        return path
    from commands_tflite import export_int8

    rows = load_rows(kind, shards, work)
    features = rows.features[~rows.held_back]
    sample = features[:: max(len(features) // 2000, 1)].astype(np.float32)
    paths = {name: work / f"{kind}-{seed}-{name}.tflite" for name in ("float", "int8")}
    if not paths["float"].exists():
        _train(kind, seed, teachers, epochs, rows, sample, paths["float"], work)
    export_int8(paths["float"], paths["int8"], sample[:: max(len(sample) // CALIBRATION_ROWS, 1)])
    held_back = rows.truth[rows.held_back]
    said = {name: held_back_logits(file, rows.features[rows.held_back]) for name, file in paths.items()}
    report = {
        "bytes": paths["int8"].stat().st_size,
        **{name: accuracy(logits, held_back, LABELS) for name, logits in said.items()},
    }
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def _train(
    kind: Kind, seed: int, teachers: Sequence[int], epochs: int, rows: Rows, sample: NDArray[np.float32], path: Path,
    work: Path,
) -> None:  # fmt: skip
    """The long part: one network, its float file, and of the embedding also what it tells its pupil."""
    import torch
    from commands_net import smoothed, train
    from commands_tflite import export_float

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    taught = ~rows.held_back
    features, truth = rows.features[taught], smoothed(rows.truth[taught], len(LABELS))
    if kind == "dscnn":
        told = np.mean([np.load(_teacher(one, work)).astype(np.float32) for one in teachers], axis=0)
        truth = (1.0 - TEACHER_SHARE) * truth + TEACHER_SHARE * told
    chances = np.where(np.char.startswith(rows.sources[taught], "espeak"), FORMANT_SHARE, 1.0)
    chances *= np.where(rows.truth[taught] == LABELS.index(OTHER), OTHER_SHARE, 1.0)
    net = train(
        _network(kind, sample), features, truth, chances.astype(np.float32), _teaching(kind, epochs), seed,
        say=lambda line: print(f"{kind} {line}", flush=True),
    )  # fmt: skip
    if kind == "embed":
        np.save(_teacher(seed, work), _answers(net, features))
    export_float(net.eval(), sample[0], path)


def _network(kind: Kind, sample: NDArray[np.float32]) -> torch.nn.Module:
    import torch
    from commands_net import DsCnn, EmbedHead

    mean, std = float(sample.mean()), float(sample.std())
    if kind == "embed":
        return EmbedHead(len(LABELS), mean, std)
    return DsCnn(len(LABELS), mean, std).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _teaching(kind: Kind, epochs: int) -> Teaching:
    from commands_net import Teaching

    if kind == "embed":
        return Teaching(epochs, batch=128, rate=4e-3, mask_time=2, mask_bands=0, jitter=0.1, mixup=0.2)
    return Teaching(epochs, batch=96, rate=6e-3, mask_time=6, mask_bands=4, jitter=0.03, mixup=0.0)


def _teacher(seed: int, work: Path) -> Path:
    return work / f"teacher-{seed}.npy"


def _answers(net: torch.nn.Module, features: NDArray[np.float16]) -> NDArray[np.float16]:
    """What a trained network says of each row, (n, labels)."""
    import torch

    said = []
    with torch.no_grad():
        for start in range(0, len(features), 512):
            rows = torch.from_numpy(features[start : start + 512].astype(np.float32))[:, None]
            said.append(torch.softmax(net(rows), dim=1).numpy())
    return np.concatenate(said).astype(np.float16)


def held_back_logits(path: Path, features: NDArray[np.float16]) -> NDArray[np.float32]:
    """Logits of an exported file through the product's own engine, (n, labels)."""
    engine = Engine(path)
    entry, out = engine.inputs[0], engine.outputs[0]
    rows = [engine.invoke(entry.quantise(row[None].astype(np.float32)))[0] for row in features]
    return np.stack([out.dequantise(row)[0] for row in rows])


def calibrate(kind: Kind, seed: int, shards: int, work: Path) -> tuple[float, float]:
    """Sharpness of the scores, and the shift of `_other` with which a score of 0.5 lets MOST_WRONGLY_HEARD through.

    From held-back synthetic voices. Unshifted, `_other` wins whatever is odd: of a voice that never trained it took a
    third of the commands, while no command was ever taken for another.
    """
    rows = load_rows(kind, shards, work)
    logits = held_back_logits(work / f"{kind}-{seed}-int8.tflite", rows.features[rows.held_back]) * SHARPNESS
    logits = logits[rows.truth[rows.held_back] == LABELS.index(OTHER)]
    other, commands = LABELS.index(OTHER), [LABELS.index(word) for word in COMMANDS]
    shift = 2.0
    while shift > -6.0:
        moved = logits.copy()
        moved[:, other] += shift - SHIFT_STEP
        weights = np.exp(moved - moved.max(axis=1, keepdims=True))
        scores = weights / weights.sum(axis=1, keepdims=True)
        if float(np.mean(scores[:, commands].max(axis=1) >= THRESHOLD)) > MOST_WRONGLY_HEARD:
            break
        shift -= SHIFT_STEP
    return SHARPNESS, round(shift, 3)


def reports(kind: Kind, seeds: Sequence[int], work: Path) -> dict[int, dict[str, Any]]:
    return {seed: json.loads((work / f"{kind}-{seed}.json").read_text(encoding="utf-8")) for seed in seeds}
