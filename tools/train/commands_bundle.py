"""What `tools/train/commands` publishes: model files with manifest, card and golden sounds, sealed by the product's
own code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
import wave
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from commands_data import load_shard
from commands_jobs import AUDIO, MOST_WRONGLY_HEARD, THRESHOLD, Kind
from commands_judge import Share
from commands_sound import F32, RATE_HZ
from commands_tflite import copy_front_end
from commands_voices import ESPEAK_VARIANTS, HELD_BACK_VARIANTS
from commands_words import COMMANDS, LABELS, OTHER

from edge_runtime import features
from edge_runtime.core.manifest import Kind as ModelKind
from edge_runtime.modelstore.bundle import Bundle, load_bundle, seal_bundle
from edge_runtime.predictors.keyword import open_keyword_model

NAMES: dict[Kind, str] = {"embed": "commands-embed", "dscnn": "commands-dscnn"}
TITLES: dict[Kind, str] = {
    "embed": "Spoken commands, letters and digits, by a speech embedding",
    "dscnn": "Spoken commands, letters and digits, for small boards",
}
GOLDEN_TOLERANCE = 0.15  # of a score; other runtimes round some embeddings' last bits otherwise
GOLDEN_CANDIDATES = 12  # takes of each golden word that are tried
GOLDEN_WORDS = ("reject", "accept", "stop line", "seven", "alpha", OTHER)
RECIPE_FILES = ("words", "voices", "sound", "data", "net", "jobs")
Figures = Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured for one kind. reports: by seed, what held-back voices say; human: by "float", "int8"."""

    kind: Kind
    best_seed: int
    reports: dict[int, dict[str, Any]]
    human: dict[str, Figures]
    seeds_human: dict[int, Figures]  # of every seed's int8 network, the main figures
    recipe: str
    minutes: float
    jobs: int


def recipe_digest(plan: Any) -> str:
    """SHA-256 over the code that speaks, spoils and trains, and how much of it ran: the training data's identity."""
    digest = hashlib.sha256(repr((asdict(plan.amounts), plan.epochs)).encode())
    here, product = Path(__file__).parent, Path(str(features.__file__)).parent
    for path in (
        *(here / f"commands_{name}.py" for name in RECIPE_FILES),
        product / "mel.py",
        product / "speech_clip.py",
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def draft(folder: Path, kind: Kind, model_file: Path, calibration: tuple[float, float], recipe: str) -> Bundle:
    """A bundle without figures, card and golden sounds, to be judged."""
    folder.mkdir(parents=True)
    shutil.copy(model_file, folder / "model.tflite")
    if kind == "embed":
        copy_front_end(folder / "front_end", AUDIO[kind].rate_hz * AUDIO[kind].clip_ms // 1000)
    table = {
        "name": NAMES[kind],
        "version": folder.name,
        "kind": ModelKind.KEYWORD,
        "title": TITLES[kind],
        "licence": "Apache-2.0",
        "training_data": recipe,
        "audio": AUDIO[kind].model_dump(exclude_none=True),
        "output": {"labels": LABELS, "activation": "softmax", "calibration": calibration},
        "thresholds": {"accept_below": THRESHOLD, "reject_at": THRESHOLD},
        "golden_tolerance": GOLDEN_TOLERANCE,
    }
    return seal_bundle(folder, table)


def publish(out: Path, drafted: Bundle, result: Result, spoken: Sequence[tuple[str, F32]]) -> Bundle:
    """Add figures, card and golden sounds to a drafted bundle and put it at `out`; what was there is replaced."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=out.parent) as building:
        folder = Path(building) / out.name
        shutil.copytree(drafted.folder, folder)
        version = {"version": out.name, "metrics": _metrics(result)}
        bundle = seal_bundle(folder, drafted.manifest.model_copy(update=version))
        (folder / "CARD.md").write_text(_card(bundle, result), encoding="utf-8")
        bundle = add_golden_sounds(bundle, spoken)
        shutil.rmtree(out, ignore_errors=True)
        bundle.folder.rename(out)
    return load_bundle(out)


def add_golden_sounds(bundle: Bundle, spoken: Sequence[tuple[str, F32]]) -> Bundle:
    """Put sounds (file stem, float32 full scale 1.0) and what the model says of them into a bundle; seal it again."""
    folder = bundle.folder / "golden"
    folder.mkdir(exist_ok=True)
    model = open_keyword_model(bundle)
    said: dict[str, dict[str, float]] = {}
    for stem, sound in spoken:
        pcm = np.rint(sound / max(float(np.abs(sound).max()), 1e-6) * 20_000).astype("<i2")
        with wave.open(str(folder / f"{stem}.wav"), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            file.writeframes(pcm.tobytes())
        prediction = model(pcm)
        best = sorted(prediction.scores, key=lambda label: -prediction.scores[label])[:3]
        said[f"{stem}.wav"] = {"score": round(prediction.score, 5)} | {
            f"scores.{label}": round(prediction.scores[label], 5) for label in best
        }
    text = json.dumps(said, indent=1, sort_keys=True)
    (folder / "expected.json").write_text(f"{text}\n", encoding="utf-8")
    runtime = model.runtime
    return seal_bundle(bundle.folder, bundle.manifest.model_copy(update={"runtime": runtime}))


def golden_takes(work: Path, bundles: Sequence[Bundle]) -> list[tuple[str, F32]]:
    """One formant voice for each golden word: its sound may go with the product. Of several, the one that all these
    bundles understand best: what is close to a limit would fall on either side on another processor."""
    spoken, takes = load_shard(work / "said-0.npz"), []
    models = [open_keyword_model(bundle) for bundle in bundles]
    pad = np.zeros(3 * RATE_HZ // 10, np.float32)

    def least_score(sound: F32, word: str) -> float:
        return min(model(sound).scores[word] for model in models)

    for word in GOLDEN_WORDS:
        sounds = [
            np.concatenate([pad, spoken.sounds[index][: int(1.2 * RATE_HZ)], pad])
            for index, (label, source) in enumerate(zip(spoken.labels, spoken.sources, strict=True))
            if label == word and source.startswith("espeak") and not spoken.held_back[index]
        ][:GOLDEN_CANDIDATES]
        if sounds:
            best = max(sounds, key=lambda sound: least_score(sound, word))
            takes.append((word.strip("_").replace(" ", "_"), best))
    return takes


def _metrics(result: Result) -> dict[str, float]:
    flat: dict[str, float] = {}
    for seed, report in result.reports.items():
        for name in ("float", "int8"):
            flat |= {f"heldback.{name}.{seed}.{key}": value for key, value in report[name].items()}
    for seed, figures in result.seeds_human.items():
        flat |= {f"human.int8.{seed}.{key}": share.value for key, share in figures.items()}
    for name, figures in result.human.items():
        flat |= {f"human.{name}.{key}": share.value for key, share in figures.items()}
    return {key: round(value, 4) for key, value in flat.items()}


def _card(bundle: Bundle, result: Result) -> str:
    manifest, report = bundle.manifest, result.reports[result.best_seed]
    names = ("torch", "litert-torch", "ai-edge-quantizer", "piper-tts", "hibari-tts")
    tools = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    seeds = "\n".join(
        f"| {seed} | {row['float']['words']:.4f} | {row['int8']['words']:.4f} | {row['int8']['rejected']:.4f} | "
        + " | ".join(f"{100 * result.seeds_human[seed][key].value:.1f}" for key in SEED_FIGURES)
        + " |"
        for seed, row in result.reports.items()
    )
    human = "\n".join(
        f"| {key} | {result.human['float'].get(key, '-')} | {share} |" for key, share in result.human["int8"].items()
    )
    heads = " | ".join(f"human {key}, %" for key in SEED_FIGURES)
    return f"""# {manifest.label}: {manifest.title}

Names one word said alone: {", ".join(COMMANDS)}; the NATO spelling words, the digits zero to nine, "oh" and "code"; or
`{OTHER}`, which is everything else. English. {_HOW[result.kind]}

| | |
|---|---|
| input | 16 kHz mono; the speech is cut out, centred in {AUDIO[result.kind].clip_ms} ms and brought to \
{AUDIO[result.kind].loudness_dbfs:g} dBFS |
| padding | {AUDIO[result.kind].pad_ms} ms of silence around an utterance, in training and on the box |
| size | {report["bytes"] / 1000:.1f} kB int8{_front_end_size(bundle)} |
| time | {_milliseconds(bundle):.1f} ms of one x86-64 core for a word, front end included (fastest of 40) |
| a command counts from | {manifest.thresholds.reject_at:g}; {MOST_WRONGLY_HEARD:.0%} of held-back near misses, \
sentences and noise reach it |
| licence | {manifest.licence}{"; front end: see front_end/NOTICE" if result.kind == "embed" else ""} |

## Made from
Synthetic voices only, by `tools/train/commands`: espeak-ng (8 accents, {_VARIANTS} variants), flite (awb, rms, slt),
festival (ked, slt), piper (joe) and hibari (heart), spoken at many rates, warped to other throats, through rooms,
codecs and noise of 0 to 30 dB. Every source, codec and noise occurs in the words and in `{OTHER}` alike, which holds
near misses of the words (except, object, text, council...), plain words, sentences, halves of words and bare noise. The
voice kal and eight variants of espeak-ng never train: they choose the seed and the threshold.{_TAUGHT[result.kind]}
{result.minutes:.0f} minutes on {result.jobs} processes of a shared machine.
Tools: {tools}.

| seed | held-back voices, words, float | int8 | rejected, int8 | {heads} |
|---|---|---|---|{"---|" * len(SEED_FIGURES)}
{seeds}

Held-back voices are heard at 0 to 30 dB through rooms and codecs, which is why their figures are low. Published: seed
{result.best_seed}, the best on them.

## How good
On recordings of people, none of which it was trained on (Debian's asterisk-core-sounds-en-g722, one woman: the NATO
words, the digits, "pause"), with Wilson's 95 % interval. `top1`: the right word of all {len(LABELS) - 1}, with noise at
that ratio to the speech. `accepted`: prompts and utterances that are no command and were taken for one. `codes`: a
letter and three digits with pauses of 60 to 250 ms, all four right. `held_back`: the seven commands by synthetic voices
that never trained, understood and above the threshold.{_digits_sentence(result)}

| | float | int8 |
|---|---|---|
{human}

No package holds an English "accept", "reject", "rescan", "next", "cancel" or "stop line" said alone by a person: of the
seven commands only "pause" was ever tested on one. The recipe was tuned while these human figures were in sight; the
recordings themselves never trained anything.

## Not for
Open listening: ask for a wake word or a key first, then listen for one word. Other languages. Speech under loud
machines (below 5 dB use the key and the screen). Words that run into each other: spelling needs short pauses. It is
never an emergency stop.
"""


SEED_FIGURES = ("top1.clean", "top1.pink_10db", "codes.clean")
_HOW: dict[Kind, str] = {
    "embed": "A frozen speech\nembedding, pretrained by others on people, feeds a small int8 network.",
    "dscnn": "A depthwise separable\nnetwork on a log-mel picture, int8, for boards where the embedding is too slow.",
}
_TAUGHT: dict[Kind, str] = {
    "embed": "",
    "dscnn": " Nine tenths of each answer\nthat it learns are the mean of what the embedding networks say.",
}
_VARIANTS = len(ESPEAK_VARIANTS) - len(HELD_BACK_VARIANTS)


def _digits_sentence(result: Result) -> str:
    if "digits" not in result.human["int8"]:
        return ""
    return """ `digits`: 8 kHz recordings of three men
(Free Spoken Digit Dataset), looked at only after the recipe was settled; named of all words, and of the ten digits."""


def _front_end_size(bundle: Bundle) -> str:
    size = sum(path.stat().st_size for path in bundle.folder.glob("front_end/*.tflite"))
    return f", front end {size / 1e6:.1f} MB float" if size else ""


def _milliseconds(bundle: Bundle) -> float:
    model = open_keyword_model(bundle)
    sound = np.random.default_rng(1).integers(-3000, 3000, RATE_HZ).astype(np.int16)
    times = []
    for _ in range(40):
        started = time.process_time_ns()
        model(sound)
        times.append((time.process_time_ns() - started) / 1e6)
    return min(times)
