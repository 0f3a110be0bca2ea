"""Every trained network as a draft of its bundle, judged by the product's own code. Jobs for processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from commands_bundle import draft
from commands_data import load_shard
from commands_jobs import Kind, calibrate
from commands_judge import Share, judge, judge_briefly, judge_commands, judge_digits
from commands_sound import F32
from commands_words import COMMANDS

from edge_runtime.modelstore.bundle import Bundle, load_bundle
from edge_runtime.predictors.keyword import open_keyword_model

Precision = Literal["float", "int8"]
TAKES_SHARDS = 16  # all: there are few held-back commands


def drafted(work: Path, kind: Kind, seed: int, precision: Precision, recipe: str) -> Bundle:
    """The draft of one network's bundle; made when it is not there."""
    folder = work / "drafts" / f"{kind}-{precision}" / str(seed)
    if folder.exists():
        return load_bundle(folder)
    calibration = calibrate(kind, seed, len(list(work.glob("rows-*.npz"))), work)
    return draft(folder, kind, work / f"{kind}-{seed}-{precision}.tflite", calibration, recipe)


def judge_seed(kind: Kind, seed: int, precision: Precision, recipe: str, work: Path) -> dict[str, Share]:
    """The main figures of one network."""
    model = open_keyword_model(drafted(work, kind, seed, precision, recipe))
    return _once(model.bundle.folder / ".." / f"brief-{seed}.json", lambda: judge_briefly(model))


def judge_best(
    kind: Kind, seed: int, recipe: str, work: Path, digits: Path | None
) -> tuple[dict[str, Share], dict[str, Share]]:
    """The main figures of one int8 network, and all of them; digits: a folder of more people's, where there is one."""
    brief = judge_seed(kind, seed, "int8", recipe, work)
    model = open_keyword_model(drafted(work, kind, seed, "int8", recipe))

    def everything() -> dict[str, Share]:
        found = judge(model) | judge_commands(model, _held_back_commands(work))
        return found | judge_digits(model, digits) if digits else found

    return brief, _once(model.bundle.folder / ".." / f"full-{seed}.json", everything)


def _once(path: Path, measure: Callable[[], dict[str, Share]]) -> dict[str, Share]:
    """What was measured before, or is now, and kept for the next time."""
    if not path.exists():
        table = {key: (share.hits, share.trials) for key, share in measure().items()}
        path.write_text(json.dumps(table), encoding="utf-8")
    return {key: Share(*pair) for key, pair in json.loads(path.read_text(encoding="utf-8")).items()}


def best_seed(kind: Kind, seeds: Sequence[int], work: Path) -> int:
    """The seed whose int8 network names held-back synthetic voices best: people's recordings do not choose."""
    said = {seed: json.loads((work / f"{kind}-{seed}.json").read_text(encoding="utf-8")) for seed in seeds}
    return max(seeds, key=lambda seed: float(said[seed]["int8"]["all"]))


def _held_back_commands(work: Path) -> list[tuple[str, F32]]:
    takes = []
    for shard in range(TAKES_SHARDS):
        spoken = load_shard(work / f"said-{shard}.npz")
        for sound, label, held_back in zip(spoken.sounds, spoken.labels, spoken.held_back, strict=True):
            if held_back and label in COMMANDS:
                takes.append((label, sound))
    return takes
