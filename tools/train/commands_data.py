"""From words and voices to training rows: what is said by whom, and what becomes of it on the way to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands_sound import F32, RATE_HZ, Rng, as_recorded, make_noise, take_through_the_world
from commands_voices import ESPEAK_ACCENTS, ESPEAK_VARIANTS, HELD_BACK_VARIANTS, Line, say_all
from commands_words import COMMANDS, NATO, OTHER, PLAIN, SENTENCES, hard_words, pairs_of_labels, spoken_words

HUMAN_SOURCES = (  # engine, voice; made from recordings of people
    ("flite", "awb"), ("flite", "rms"), ("flite", "slt"), ("festival", "ked"), ("festival", "slt"),
    ("piper", "joe"), ("hibari", "heart"), ("hibari", "heart"),
)  # fmt: skip
HELD_BACK_SOURCES = (("flite", "kal"), ("flite", "kal16"), ("festival", "kal"))
PACE = (0.75, 1.35)
CUT_SHARE = 0.10  # of the clips of long words come a second time, cut in the middle, as OTHER
CUT_WORDS = frozenset((*COMMANDS, *NATO))  # half a digit is another digit
NOISE_SHARE = 0.05  # of all rows hold no voice


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many takes of one text. `word`: of each label, spread over its spellings."""

    espeak_word: int = 56
    human_word: int = 8  # of each human-derived source
    espeak_hard: int = 10
    human_hard: int = 1
    espeak_plain: int = 4
    human_plain: int = 1
    copies: int = 2  # ways through the world of each take

    def scaled(self, share: float) -> Amounts:
        return Amounts(*(max(1, round(getattr(self, name) * share)) for name in self.__slots__))


def plan_lines(amounts: Amounts, seed: int = 7) -> list[Line]:
    """Everything that is said, in random order, so that shards are alike."""
    rng = np.random.default_rng(seed)
    lines: list[Line] = []
    for label, texts in spoken_words().items():
        lines += _takes(label, texts, amounts.espeak_word, amounts.human_word, rng)
    for text in hard_words():
        lines += _takes(OTHER, (text,), amounts.espeak_hard, amounts.human_hard, rng)
    for text in (*PLAIN, *SENTENCES, *pairs_of_labels()):
        lines += _takes(OTHER, (text,), amounts.espeak_plain, amounts.human_plain, rng)
    return [lines[i] for i in rng.permutation(len(lines))]


def _takes(label: str, texts: Sequence[str], espeak: int, human: int, rng: Rng) -> list[Line]:
    """espeak: takes by formant voices; human: by each human-derived one. About a tenth more by held-back voices."""
    who: list[tuple[str, str, bool]] = []
    trained = [v for v in ESPEAK_VARIANTS if v not in HELD_BACK_VARIANTS]
    for _ in range(espeak):
        who.append(("espeak", f"{rng.choice(ESPEAK_ACCENTS)}+{rng.choice(trained)}", False))
    for _ in range(-(-espeak // 10)):
        who.append(("espeak", f"{rng.choice(ESPEAK_ACCENTS)}+{rng.choice(HELD_BACK_VARIANTS)}", True))
    who += [(engine, voice, False) for engine, voice in HUMAN_SOURCES for _ in range(human)]
    if human > 1 or rng.random() < 0.4:
        who += [(engine, voice, True) for engine, voice in HELD_BACK_SOURCES for _ in range(-(-human // 3))]
    return [_line(label, texts, engine, voice, held_back, rng) for engine, voice, held_back in who]


def _line(label: str, texts: Sequence[str], engine: str, voice: str, held_back: bool, rng: Rng) -> Line:
    pace, pitch = float(np.exp(rng.uniform(*np.log(PACE)))), float(np.exp(rng.uniform(-0.4, 0.4)))
    text = texts[0] if rng.random() < 0.5 else str(rng.choice(list(texts)))
    return Line(label, text, engine, voice, pace, pitch, int(rng.integers(1 << 30)), held_back)


@dataclass(frozen=True, slots=True)
class Takes:
    """Spoken lines: sound, label and who."""

    sounds: list[F32]
    lines: list[Line]


def speak_shard(lines: Sequence[Line], path: Path) -> int:
    """Say these lines and keep them in one file. Returns how many were said."""
    spoken = [(sound, line) for sound, line in zip(say_all(lines), lines, strict=True) if sound is not None]
    sounds = [sound for sound, _ in spoken]
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        pcm=np.concatenate([np.rint(sound / max(np.abs(sound).max(), 1e-6) * 32767) for sound in sounds]).astype("<i2"),
        ends=np.cumsum([len(sound) for sound in sounds]),
        labels=np.array([line.label for _, line in spoken]),
        sources=np.array([f"{line.engine}:{line.voice}" for _, line in spoken]),
        texts=np.array([line.text for _, line in spoken]),
        held_back=np.array([line.held_back for _, line in spoken]),
    )
    partial.rename(path)  # what is there is whole
    return len(spoken)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A shard as it comes back from its file."""

    sounds: list[F32]
    labels: list[str]
    sources: list[str]
    texts: list[str]
    held_back: list[bool]


def load_shard(path: Path) -> Spoken:
    with np.load(path) as kept:
        sounds = np.split(kept["pcm"].astype(np.float32) / 32768.0, kept["ends"][:-1])
        return Spoken(
            [np.asarray(sound, np.float32) for sound in sounds],
            [str(x) for x in kept["labels"]],
            [str(x) for x in kept["sources"]],
            [str(x) for x in kept["texts"]],
            [bool(x) for x in kept["held_back"]],
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """One training row before its features."""

    sound: F32
    label: str
    source: str
    held_back: bool


def record_shard(spoken: Spoken, copies: int, rng: Rng) -> list[Recording]:
    """Every take `copies` times through rooms, codecs and noise; cut words and bare noise as OTHER."""
    chatter = [sound for sound, label in zip(spoken.sounds, spoken.labels, strict=True) if label == OTHER][:200]
    rows: list[Recording] = []
    for sound, label, source, held_back in zip(
        spoken.sounds, spoken.labels, spoken.sources, spoken.held_back, strict=True
    ):
        for _ in range(1 if held_back else copies):
            rows.append(Recording(take_through_the_world(sound, rng, chatter), label, source, held_back))
            if label != OTHER and rng.random() < CUT_SHARE:
                rows.append(
                    Recording(take_through_the_world(_half(sound, rng), rng, chatter), OTHER, source, held_back)
                )
    for index in range(round(NOISE_SHARE * len(rows))):
        rows.append(Recording(_bare_noise(rng), OTHER, "noise", index % 10 == 0))
    return rows


def _half(sound: F32, rng: Rng) -> F32:
    """Less than half of a word: the beginning or the end."""
    cut = int(len(sound) * rng.uniform(0.2, 0.42))
    return sound[:cut] if rng.random() < 0.5 else sound[-cut:]


def _bare_noise(rng: Rng) -> F32:
    """A second or two without a voice: steady, or swelling as if it were a word."""
    samples = int(rng.uniform(0.5, 2.2) * RATE_HZ)
    noise = make_noise(samples, rng)
    if rng.random() < 0.6:
        t = (np.arange(samples) / samples - rng.uniform(0.2, 0.8)) / rng.uniform(0.05, 0.3)
        noise = noise * np.asarray(0.05 + np.exp(-0.5 * t**2), np.float32)
    return as_recorded(noise, rng)
