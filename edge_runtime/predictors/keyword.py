"""A keyword bundle put to work on sound: one clip to one prediction, or an utterance to the words spelled in it.

Used by the voice line, by `predict` and by training's own judgement, so that all of them say the same about the same
sound. The clip is cut, centred and brought to one loudness by `features.speech_clip`, as the manifest says.

Spelling ("code alpha seven four two") needs no other model: the utterance is cut wherever its level dips, every run of
neighbouring pieces that could be a word is classified on its own, and the runs that together explain most of the
speech with most confidence are the words. Short pauses between the words are what makes it work.

A symbol said twice is the hard case: joined, "two two" reads as "two" as surely as either does alone. So a pause inside
a run costs a little, and a run that a pause parts into twice the same word is no word. Of 900 codes with a symbol said
twice (human words at 1, 1.4 and 1.7 times their speed, two synthesisers, pauses of 60 to 250 ms) 868 are right with
both rules, 862 and 849 with one of them, 793 with none. A LONGEST_STOP_MS of 60 instead breaks words that have a stop
in them: of codes in noise at 20 dB 75 % are right then, and 90 as it is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import AudioInput, Kind, OutputSpec
from edge_runtime.core.messages import Prediction
from edge_runtime.features.mel import log_mel
from edge_runtime.features.speech_clip import (
    as_float,
    fit_clip,
    frame_levels_db,
    speech_level_db,
    speech_span,
)
from edge_runtime.inference.double_activation import refuse_double_activation, refuse_shares
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.findings import Values
from edge_runtime.inference.tensors import Tensor, check_scales
from edge_runtime.modelstore.bundle import Bundle

F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
FrontEnd = Callable[[F32], F32]

MEL_FILE = "front_end/melspectrogram.tflite"
EMBEDDING_FILE = "front_end/embedding.tflite"
OTHER = "_other"  # the label of whatever is none of the words: unknown speech, noise, silence

INT16_SCALE = 32768.0  # what the speech embedding's own mel model was fed in its makers' training
EMBEDDING_STEP = 8  # mel frames between two embeddings, 80 ms

LONGEST_WORD_MS = 1100
SHORTEST_WORD_MS = 90
MOST_PIECES = 4  # of one word: "foxtrot" has three
LONGEST_STOP_MS = 110  # of silence inside a word (the t of "eight"); with 140 "two eight" is heard as "eight"
STOP_COST = 0.1  # of a stop's length is taken off a word's gain; with 0.2 "xray" falls apart into "oh xray"
TWICE_SCORE = 0.7  # of both halves; with 0.5, or a shorter stop, "papa" falls apart into "papa papa"
TWICE_STOP_FRAMES = 4  # what the levels show of a pause of 50 ms
DIP_DB = 6.0  # a level this far below both neighbours may be a border between words
FRAME_MS = 10
MARGIN_FRAMES = 4  # kept around a word where its neighbours are far enough: soft ends are below the speech level
OTHER_WHEN_SPELLING = 0.1  # of its score: what is said between the words of a code is nearly always a word
LEAST_SPELLED = 0.3  # below this a piece of speech is left out rather than guessed


@dataclass(frozen=True, slots=True)
class HeardWord:
    """One word, how sure, and where in the sound that was asked about."""

    word: str
    score: float  # 0..1
    start_ms: int
    end_ms: int


def open_keyword_model(bundle: Bundle, cfg: ModelConfig | None = None) -> KeywordModel:
    """Load a bundle's model and its front end, check both against the manifest, warm up. Raises ModelError."""
    cfg = cfg or ModelConfig()
    if bundle.manifest.kind is not Kind.KEYWORD:
        raise ModelError(f"{bundle.label} is of kind {bundle.manifest.kind}, it does not listen for words")
    try:
        model = KeywordModel(bundle, cfg)
        refuse_shares(model.raw_of_noise(), "softmax")
    except ModelError as err:
        raise ModelError(f"{bundle.label}: {err.what}", err.fix) from err
    for _ in range(cfg.warm_up):
        model.scores(np.zeros(model.spec.rate_hz, np.int16))
    return model


class KeywordModel:
    """Sound in, words out. int16 or float32 mono at the manifest's rate. For one thread at a time."""

    def __init__(self, bundle: Bundle, cfg: ModelConfig) -> None:
        manifest = bundle.manifest
        if manifest.audio is None or manifest.output is None:
            raise ModelError("manifest.toml has no [audio] or no [output]; a keyword model needs both")
        if manifest.audio.front_end == "micro":
            raise ModelError("it listens to a stream, not to clips; it is a wake word (open_wake_word)")
        self.bundle = bundle
        self.label = bundle.label
        self.spec = manifest.audio
        self.labels = manifest.output.labels
        self.least_score = manifest.thresholds.reject_at
        self._engine = _engine(bundle, "model.tflite", cfg)
        self._features = _front_end(bundle, manifest.audio, cfg)
        self._input, self._logits = _check(self._engine, manifest.output)
        self._index = {label: index for index, label in enumerate(self.labels)}
        self._sharpness, self._other_shift = manifest.output.calibration or (1.0, 0.0)

    @property
    def runtime(self) -> str:
        """The TFLite runtime that it runs on, with its version."""
        return self._engine.runtime.label

    @property
    def words(self) -> tuple[str, ...]:
        """Every label that is a word."""
        return tuple(label for label in self.labels if label != OTHER)

    def __call__(self, pcm: I16 | F32) -> Prediction:
        """What one word said alone is. `score` is that of the likeliest label that is a word."""
        t0 = time.perf_counter_ns()
        features = self.features(pcm)
        t1 = time.perf_counter_ns()
        values = self.classify(features)
        t2 = time.perf_counter_ns()
        scores = {label: float(values[index]) for index, label in enumerate(self.labels)}
        best = max((scores[word] for word in self.words), default=0.0)
        timings = {"prepare": (t1 - t0) / 1e6, "invoke": (t2 - t1) / 1e6}
        return Prediction(model=self.label, score=best, scores=scores, timings_ms=timings)

    def hear(self, pcm: I16 | F32, among: Collection[str]) -> HeardWord | None:
        """The one word of `among` that was said, or None: something else, nothing, or not clear enough.

        It has to win against every label, not only against those of `among`, reach the bundle's threshold, and fill
        the utterance: who talks for longer than a clip did not say one word.
        """
        sound = as_float(pcm)
        first, last = speech_span(sound, self.spec.rate_hz)
        start, end = (round(1000 * at / self.spec.rate_hz) for at in (first, last))
        if end - start > self.spec.clip_ms:
            return None
        values = self.scores(sound)
        best = int(values.argmax())
        if self.labels[best] not in among or values[best] < self.least_score:
            return None
        return HeardWord(self.labels[best], float(values[best]), start, end)

    def spell(self, pcm: I16 | F32, among: Collection[str] | None = None) -> list[HeardWord]:
        """The words said one after the other, in order. among: which may occur; None: all. Empty when none was heard.

        Pauses of 50 ms and more between words are enough: of 108 codes of human words at 1.4 times their speed, each
        with a symbol said twice, 108 are right (97-100 %), in noise at 20 dB 98 (84-95 %). Words run into each other
        are taken for one or left out, and a symbol said twice without a pause is often heard once: of 36 such codes 34
        are right with pauses of 40 ms, 29 with none.
        """
        sound = as_float(pcm)
        allowed = [self._index[word] for word in (self.words if among is None else among) if word in self._index]
        pieces = _pieces(sound, self.spec.rate_hz)
        if not pieces or not allowed:
            return []
        return _best_path(pieces, lambda first, last: self._word_at(sound, first, last, allowed))

    def scores(self, pcm: I16 | F32) -> F32:
        """Score of each label, in the order of `labels`, for one word said alone."""
        return self.classify(self.features(pcm))

    def features(self, pcm: I16 | F32) -> F32:
        """What the network sees of this sound: (rows, width)."""
        return self._features(fit_clip(pcm, self.spec))

    def classify(self, features: F32) -> F32:
        """Scores of features, float32 (labels,): softmax of the calibrated logits."""
        (answer,) = self._engine.invoke(self._input.quantise(features.reshape(self._input.shape)))
        logits = self._logits(answer).ravel() * np.float32(self._sharpness)
        logits[self._index[OTHER]] += np.float32(self._other_shift)
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum(), np.float32)

    def raw_of_noise(self) -> list[F32]:
        """What the network itself says about silence, noise and a tone, to see whether these are logits."""
        count, draw = self.spec.rate_hz, np.random.default_rng(0)
        tone = np.sin(np.arange(count) * (2 * np.pi * 700 / self.spec.rate_hz)).astype(np.float32)
        sounds = [np.zeros(count, np.float32), draw.normal(0, 0.1, count).astype(np.float32), 0.5 * tone]
        asked = [self._input.quantise(self.features(sound).reshape(self._input.shape)) for sound in sounds]
        return [self._logits(self._engine.invoke(tensor)[0]) for tensor in asked]

    def _word_at(self, sound: F32, first: int, last: int, allowed: Sequence[int]) -> HeardWord:
        """The likeliest allowed word between two frames, against the other allowed ones and what is no word."""
        step = self.spec.rate_hz * FRAME_MS // 1000
        values = self.scores(sound[first * step : last * step])
        rivals = float(values[allowed].sum()) + OTHER_WHEN_SPELLING * float(values[self._index[OTHER]])
        best = max(allowed, key=lambda index: float(values[index]))
        score = float(values[best]) / max(rivals, 1e-6)
        return HeardWord(self.labels[best], score, first * FRAME_MS, last * FRAME_MS)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Speech between two dips of the level. Frames of 10 ms; `first` and `last` include a margin."""

    first: int
    last: int
    starts: int
    ends: int


def _pieces(sound: F32, rate_hz: int) -> list[_Piece]:
    levels = frame_levels_db(sound, rate_hz)
    if len(levels) < 2:
        return []
    limit = speech_level_db(levels)
    loud = np.flatnonzero(levels >= limit)
    borders = [int(loud[0]), *_dips(levels, int(loud[0]), int(loud[-1])), int(loud[-1]) + 1]
    cores = []
    for first, last in itertools.pairwise(borders):
        inside = np.flatnonzero(levels[first:last] >= limit)
        if len(inside):
            cores.append((first + int(inside[0]), first + int(inside[-1]) + 1))
    pieces = []
    for index, (first, last) in enumerate(cores):
        before = cores[index - 1][1] if index else 0
        after = cores[index + 1][0] if index + 1 < len(cores) else len(levels)
        pieces.append(
            _Piece(
                max(first - MARGIN_FRAMES, (before + first) // 2 if index else 0),
                min(last + MARGIN_FRAMES, -(-(last + after) // 2) if index + 1 < len(cores) else len(levels)),
                first,
                last,
            )
        )
    return pieces


def _dips(levels: F32, first: int, last: int) -> list[int]:
    """Frames where the level is DIP_DB below what lies to the left and to the right, the deepest of each valley."""
    dips: list[int] = []
    peak, lowest, at = float(levels[first]), float("inf"), first
    for frame in range(first, last + 1):
        level = float(levels[frame])
        if level < lowest:
            lowest, at = level, frame
        if lowest < peak - DIP_DB and level > lowest + DIP_DB:  # out of the valley
            dips.append(at)
            peak, lowest = level, level
        elif level > peak:
            peak, lowest = level, level
    return dips


def _best_path(pieces: Sequence[_Piece], word_at: Callable[[int, int], HeardWord]) -> list[HeardWord]:
    """Runs of neighbouring pieces, each a word, that explain most speech: the sum of score times length is largest.

    Pieces may be left out. A word scores for the speech in it, and pays a little for the pauses in it: two short words
    read as surely together as apart ("two two" is "two" with 0.999 either way), and apart is what was said.
    """
    best: list[tuple[float, list[HeardWord]]] = [(0.0, [])]
    read: dict[tuple[int, int], HeardWord] = {}
    for end in range(1, len(pieces) + 1):
        choice = best[end - 1]  # the piece before `end` is left out
        for begin in reversed(range(max(0, end - MOST_PIECES), end)):  # the parts of a run are read before it
            run = pieces[begin:end]
            if not _could_be_a_word(run):
                continue
            heard = read[begin, end] = word_at(run[0].first, run[-1].last)
            if _is_said_twice(pieces, read, begin, end):
                continue
            speech = sum(piece.ends - piece.starts for piece in run)
            stops = run[-1].ends - run[0].starts - speech
            gain = best[begin][0] + heard.score * speech - STOP_COST * stops
            if heard.score >= LEAST_SPELLED and gain > choice[0]:
                choice = (gain, [*best[begin][1], heard])
        best.append(choice)
    return best[-1][1]


def _is_said_twice(pieces: Sequence[_Piece], read: Mapping[tuple[int, int], HeardWord], begin: int, end: int) -> bool:
    """A pause parts the run into two that both read as the word that it reads as."""
    word = read[begin, end].word
    pauses = [cut for cut in range(begin + 1, end) if pieces[cut].starts - pieces[cut - 1].ends >= TWICE_STOP_FRAMES]
    halves = [(read.get((begin, cut)), read.get((cut, end))) for cut in pauses]
    return any(all(half and half.word == word and half.score >= TWICE_SCORE for half in pair) for pair in halves)


def _could_be_a_word(run: Sequence[_Piece]) -> bool:
    stops = [after.starts - before.ends for before, after in itertools.pairwise(run)]
    length_ms = (run[-1].ends - run[0].starts) * FRAME_MS
    return SHORTEST_WORD_MS <= length_ms <= LONGEST_WORD_MS and max(stops, default=0) * FRAME_MS <= LONGEST_STOP_MS


def _front_end(bundle: Bundle, spec: AudioInput, cfg: ModelConfig) -> FrontEnd:
    if spec.front_end == "speech_embedding":
        return SpeechEmbedding(
            _engine(bundle, MEL_FILE, cfg), _engine(bundle, EMBEDDING_FILE, cfg), spec.rate_hz * spec.clip_ms // 1000
        )
    mel = spec.mel
    if mel is None:
        raise ModelError("audio.front_end is log_mel and manifest.toml has no [audio.mel]")
    return lambda clip: log_mel(clip, spec.rate_hz, mel)


class SpeechEmbedding:
    """A clip to embeddings of 96 numbers each 80 ms, by two frozen networks of a fixed clip length.

    mel: float samples on the int16 scale to mel frames in dB; embedding: windows of 76 frames to embeddings.
    """

    def __init__(self, mel: Engine, embedding: Engine, samples: int) -> None:
        self._mel, self._embedding = mel, embedding
        self._windows, self._frames, bands = embedding.inputs[0].shape[:3]
        needed = (self._windows - 1) * EMBEDDING_STEP + self._frames
        shape = mel.outputs[0].shape
        if mel.inputs[0].shape != (1, samples) or shape[-1] != bands or shape[-2] < needed:
            raise ModelError(f"its front end does not fit clips of {samples} samples and {needed} frames: {shape}")

    def __call__(self, clip: F32) -> F32:
        """clip: full scale 1.0. Returns float32 (windows, 96)."""
        (decibels,) = self._mel.invoke(clip[None] * np.float32(INT16_SCALE))
        frames = decibels.reshape(-1, decibels.shape[-1]) / np.float32(10.0) + np.float32(2.0)  # as it was trained
        windows = np.lib.stride_tricks.sliding_window_view(frames, self._frames, axis=0)[::EMBEDDING_STEP]
        stacked = windows[: self._windows].transpose(0, 2, 1)[..., None]
        (embeddings,) = self._embedding.invoke(np.ascontiguousarray(stacked, np.float32))
        return np.asarray(embeddings.reshape(self._windows, -1), np.float32)


def _engine(bundle: Bundle, name: str, cfg: ModelConfig) -> Engine:
    digest = bundle.manifest.files.get(name)
    if digest is None:
        raise ModelError(f"{name} is missing from the bundle")
    path = bundle.folder / name
    engine = Engine(path, threads=cfg.threads, delegate=cfg.delegate, runtime=cfg.runtime, sha256=digest)
    check_scales(*engine.inputs, *engine.outputs)
    return engine


def _check(engine: Engine, spec: OutputSpec) -> tuple[Tensor, Values]:
    if len(engine.inputs) != 1 or len(engine.outputs) != 1:
        raise ModelError(f"it has {len(engine.inputs)} inputs and {len(engine.outputs)} outputs, one of each is needed")
    if engine.outputs[0].size != len(spec.labels):
        raise ModelError(f"the model tells {engine.outputs[0].size} words, output.labels has {len(spec.labels)}")
    if OTHER not in spec.labels:
        raise ModelError(f"output.labels lacks {OTHER!r}: it could not say that a word is unknown")
    if spec.activation != "softmax":
        raise ModelError(f"output.activation is {spec.activation!r}; scores of words are the softmax of logits")
    refuse_double_activation(engine, spec.activation)
    return engine.inputs[0], Values(engine.outputs[0], "none")
