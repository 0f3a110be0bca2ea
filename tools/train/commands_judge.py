"""How good a voice bundle is: on people it never heard, in noise, and on speech that is no command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands_humans import human_words, hurried_words, other_prompts
from commands_sound import F32, RATE_HZ, add_noise, unit
from commands_words import COMMANDS, DIGITS, NATO, OTHER
from numpy.typing import NDArray

from edge_runtime.features.speech_clip import frame_levels_db, speech_level_db
from edge_runtime.media.sound_file import read_sound
from edge_runtime.predictors.keyword import KeywordModel
from edge_runtime.predictors.wake_word import open_micro_wake_word

I16 = NDArray[np.int16]
PAD_S = 0.3
NOISES_A_WORD = 5
CODES = 100
GAP_S = (0.06, 0.25)  # between the words of a code
WAKE_CHUNK = 480  # samples
PAUSE_S = 0.3  # ends an utterance, as the voice detector's hangover does
Z = 1.96


@dataclass(frozen=True, slots=True)
class Share:
    """hits of trials, with Wilson's 95 % interval."""

    hits: int
    trials: int

    @property
    def value(self) -> float:
        return self.hits / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        n, p = self.trials, self.value
        if not n:
            return (0.0, 1.0)
        middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * float(np.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)))
        return (max(middle - half, 0.0), min(middle + half, 1.0))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:5.1f} % ({self.hits}/{self.trials}, {100 * low:.1f}-{100 * high:.1f})"


def judge(model: KeywordModel, say: Callable[[str, Share], None] = lambda name, share: None) -> dict[str, Share]:
    """Every figure of a bundle on human recordings; `say` is told each as it is known."""
    found: dict[str, Share] = {}
    for name, share in _figures(model):
        found[name] = share
        say(name, share)
    return found


def judge_briefly(model: KeywordModel) -> dict[str, Share]:
    """What tells one training run from another."""
    return {
        "top1.clean": top1(model, None, pink),
        "top1.pink_10db": top1(model, 10.0, pink),
        "accepted.prompts": accepted(model)["accepted.prompts"],
        "codes.clean": codes(model, None, CODES // 2)[0],
        "codes.20db": codes(model, 20.0, CODES // 2)[0],
    }


def judge_commands(model: KeywordModel, takes: Sequence[tuple[str, F32]]) -> dict[str, Share]:
    """The commands by synthetic voices that never trained: understood, and sure enough to count."""
    found = {}
    for snr_db in (None, 20.0, 10.0):
        rng, hits = np.random.default_rng(17), 0
        for word, sound in takes:
            padded = _padded(sound)
            if snr_db is not None:
                padded = add_noise(padded, pink(len(padded), rng), snr_db)
            heard = model.hear(as_pcm(padded), COMMANDS)
            hits += heard is not None and heard.word == word
        found["held_back." + ("clean" if snr_db is None else f"{snr_db:.0f}db")] = Share(hits, len(takes))
    return found


def _figures(model: KeywordModel) -> Iterator[tuple[str, Share]]:
    yield "top1.clean", top1(model, None, pink)
    for noise in (pink, white, mains_hum):
        for snr_db in (20, 10, 5):
            yield f"top1.{noise.__name__}_{snr_db}db", top1(model, float(snr_db), noise)
    yield from accepted(model).items()
    for snr in (None, 20.0, 10.0):
        name = "clean" if snr is None else f"{snr:.0f}db"
        exact, symbols = codes(model, snr)
        yield f"codes.{name}", exact
        yield f"code_symbols.{name}", symbols
    yield "doubled.clean", doubled(model, None)
    yield "doubled.20db", doubled(model, 20.0)


def top1(model: KeywordModel, snr_db: float | None, noise: Callable[[int, np.random.Generator], F32]) -> Share:
    """Human words named right among all words, said alone with silence (or noise) around. `_other` is no answer."""
    rng = np.random.default_rng(5)
    columns = [model.labels.index(word) for word in model.words]
    hits = trials = 0
    for word, recordings in human_words().items():
        for sound in recordings:
            for _ in range(1 if snr_db is None else NOISES_A_WORD):
                padded = _padded(sound)
                if snr_db is not None:
                    padded = add_noise(padded, noise(len(padded), rng), snr_db)
                scores = model.scores(as_pcm(padded))
                hits += model.words[int(scores[columns].argmax())] == word
                trials += 1
    return Share(hits, trials)


def accepted(model: KeywordModel) -> dict[str, Share]:
    """Human speech that is no command and was taken for one: by prompt, and by utterance between pauses."""
    prompts = utterances = prompt_hits = utterance_hits = 0
    for prompt in other_prompts():
        heard = [model.hear(part, COMMANDS) is not None for part in _utterances(prompt.pcm)]
        prompts, prompt_hits = prompts + 1, prompt_hits + any(heard)
        utterances, utterance_hits = utterances + len(heard), utterance_hits + sum(heard)
    return {
        "accepted.prompts": Share(prompt_hits, prompts),
        "accepted.utterances": Share(utterance_hits, utterances),
    }


def codes(model: KeywordModel, snr_db: float | None, count: int = CODES) -> tuple[Share, Share]:
    """Letter and three digits with short pauses, from human words: (exact codes, symbols right in exact length)."""
    rng = np.random.default_rng(11)
    words, exact, right = {word: recordings[0] for word, recordings in human_words().items()}, 0, 0
    for _ in range(count):
        said = [str(rng.choice(list(NATO))), *(str(d) for d in rng.choice(list(DIGITS)[:10], 3))]
        heard = _spelled(model, said, words, snr_db, rng)
        exact += heard == said
        right += sum(a == b for a, b in zip(heard, said, strict=False)) if len(heard) == len(said) else 0
    return Share(exact, count), Share(right, 4 * count)


def doubled(model: KeywordModel, snr_db: float | None, times: int = 3) -> Share:
    """Codes of four symbols, two neighbours the same, of human words said fast: each letter and digit so many times."""
    rng = np.random.default_rng(13)
    digits, exact = list(DIGITS)[:10], 0
    said = [(word, word, *(str(d) for d in rng.choice(digits, 2, replace=False))) for word in [*NATO] * times]
    said += [(str(rng.choice(list(NATO))), word, word, str(rng.choice(digits))) for word in digits * times]
    for code in said:
        exact += _spelled(model, code, hurried_words(), snr_db, rng) == list(code)
    return Share(exact, len(said))


def _spelled(
    model: KeywordModel, said: Sequence[str], words: Mapping[str, F32], snr_db: float | None, rng: np.random.Generator
) -> list[str]:
    """What is heard of these words, with short pauses between them."""
    parts = [np.zeros(int(PAD_S * RATE_HZ), np.float32)]
    for word in said:
        parts += [words[word], np.zeros(int(rng.uniform(*GAP_S) * RATE_HZ), np.float32)]
    sound = np.concatenate([*parts, parts[0]])
    if snr_db is not None:
        sound = add_noise(sound, pink(len(sound), rng), snr_db)
    return [found.word for found in model.spell(as_pcm(sound), (*NATO, *DIGITS))]


def judge_digits(model: KeywordModel, folder: Path) -> dict[str, Share]:
    """Recordings of people in a folder, named DIGIT_SPEAKER_NUMBER.wav as the Free Spoken Digit Dataset does.

    digits: named right of all words ("oh" counts as zero); digits_of_ten: of the ten digits.
    """
    names = list(DIGITS)[:10]
    columns = {
        key: [model.labels.index(word) for word in words] for key, words in (("all", model.words), ("ten", names))
    }
    hits, trials = {"all": 0, "ten": 0}, 0
    for path in sorted(folder.glob("[0-9]_*.wav")):
        truth, trials = names[int(path.name[0])], trials + 1
        scores = model.scores(as_pcm(_padded(read_sound(path, RATE_HZ).pcm)))
        for key, among in columns.items():
            said = model.labels[among[int(scores[among].argmax())]]
            hits[key] += said == truth or (said, truth) == ("oh", "zero")
    return {"digits": Share(hits["all"], trials), "digits_of_ten": Share(hits["ten"], trials)}


def wake_false_accepts(settings: Path, speech: Mapping[str, I16]) -> dict[str, int]:
    """How often a wake word was heard in speech that does not hold it, by speaker or package."""
    wake, found = open_micro_wake_word(settings), {}
    for name, pcm in speech.items():
        wake.reset()
        pieces = (pcm[start : start + WAKE_CHUNK] for start in range(0, len(pcm), WAKE_CHUNK))
        found[name] = sum(wake.hear(piece) >= wake.least_score for piece in pieces)
    return found


def accuracy(scores: NDArray[np.float32], truth: NDArray[np.int64], labels: Sequence[str]) -> dict[str, float]:
    """On held-back voices. words: share of words named right against all labels; rejected: share of what is no word
    that no word won; all: share of all rows named right."""
    best = scores.argmax(axis=1)
    word, other = truth != labels.index(OTHER), truth == labels.index(OTHER)
    return {
        "words": float(np.mean(best[word] == truth[word])),
        "rejected": float(np.mean(best[other] == labels.index(OTHER))),
        "all": float(np.mean(best == truth)),
    }


def pink(samples: int, rng: np.random.Generator) -> F32:
    """Falling by 3 dB an octave from 20 Hz."""
    hz = np.fft.rfftfreq(samples, 1.0 / RATE_HZ)
    return unit(np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) / np.sqrt(np.maximum(hz, 20.0)), samples))


def white(samples: int, rng: np.random.Generator) -> F32:
    return unit(rng.standard_normal(samples))


def mains_hum(samples: int, rng: np.random.Generator) -> F32:
    """50 Hz with 19 harmonics, and some pink noise: a motor beside the microphone."""
    t = np.arange(samples) / RATE_HZ
    tones = np.sum([np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 20)], axis=0)
    return unit(unit(tones) + 0.5 * pink(samples, rng))


def as_pcm(sound: F32) -> I16:
    """16 bits with headroom, as a recording has."""
    peak = max(float(np.abs(sound).max()), 1e-9)
    return np.asarray(np.rint(sound / peak * 28_000.0), np.int16)


def _padded(sound: F32) -> F32:
    silence = np.zeros(int(PAD_S * RATE_HZ), np.float32)
    return np.concatenate([silence, sound, silence])


def _utterances(pcm: I16) -> Iterator[I16]:
    """Cut at pauses, with the padding that the voice detector leaves."""
    levels = frame_levels_db(pcm.astype(np.float32) / 32768.0, RATE_HZ)
    loud = np.flatnonzero(levels >= speech_level_db(levels))
    if not len(loud):
        return
    breaks = np.flatnonzero(np.diff(loud) > PAUSE_S * 100)
    step, pad = RATE_HZ // 100, int(PAD_S * RATE_HZ)
    for first, last in zip([loud[0], *loud[breaks + 1]], [*loud[breaks], loud[-1]], strict=True):
        start, end = int(first) * step - pad, int(last + 1) * step + pad
        quiet = [np.zeros(max(n, 0), np.int16) for n in (-start, end - len(pcm))]
        yield np.concatenate([quiet[0], pcm[max(start, 0) : end], quiet[1]])
