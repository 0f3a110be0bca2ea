"""What does it hear? The station's microphone, voice detector, wake word and recogniser, without the dialog.

The same parts as the voice line's, put together for a person who looks at them: every utterance is recognised, in a
window or not, and nothing is carried out. What is missing (a wake word, a bundle) is told and left out.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.capture.microphones.drivers import open_microphone
from edge_runtime.capture.microphones.microphone import Microphone, MicrophoneLost
from edge_runtime.catalogue.catalogue import DATABASE
from edge_runtime.catalogue.searcher import Found, Searcher
from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError, EdgeError, ModelError
from edge_runtime.core.messages import AudioChunk, Utterance
from edge_runtime.features.audio_level import rms_dbfs
from edge_runtime.features.mel import as_float
from edge_runtime.features.noise_gate import WINDOW_MS
from edge_runtime.features.sound_validity import REASON, SPEECH, SoundCheck
from edge_runtime.features.voice_activity import VoiceActivity, speech_cutting
from edge_runtime.flow.components import State
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.inference.speech_answer import Transcript
from edge_runtime.lines.voice_line import SILENT_DBFS
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.keyword import KeywordModel, open_keyword_model
from edge_runtime.predictors.model_choice import would_listen
from edge_runtime.predictors.recogniser_chain import KeywordRecogniser
from edge_runtime.station.voice_wiring import open_wake

READ_S = 0.1
TOP = 5
GONE_S = 5.0  # a device that is not there after so long is told and given up


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known after one chunk."""

    at_s: float  # sound heard so far
    level_dbfs: float
    floor_dbfs: float
    is_speech: bool
    wake_score: float
    is_latched: bool
    health: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance, and what the box makes of it."""

    start_s: float
    end_s: float
    transcript: str
    confidence: float
    command: str | None
    origin: str
    results: list[str]
    scores: dict[str, float] = field(default_factory=dict)  # the likeliest words, if it was one
    near: list[str] = field(default_factory=list)  # of a code that is not there: those one symbol off
    flaw: str = ""  # why its sound was not understood: "invalid_sound: clipped 40 % of samples"

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Listener:
    """Use it as an iterator, in one thread; `close` lets the microphone go."""

    def __init__(self, cfg: EdgeConfig, clock: Clock) -> None:
        """Raises EdgeError when the microphone cannot be had."""
        self.missing: list[str] = []
        self.wakes = 0
        self.utterances: list[Heard] = []
        self._cfg = cfg
        self._clock = clock
        self.microphone: Microphone = open_microphone(cfg.microphone, clock)
        with native_noise_hidden():
            self._model = self._open_model(cfg)
        self._own = KeywordRecogniser(self._model) if self._model else None
        self._cutter = VoiceActivity(speech_cutting(cfg.microphone, self._model.spec if self._model else None))
        self._search = Searcher(state_dir(cfg) / DATABASE)
        self._first_ns: int | None = None
        self._end_ns = 0
        self._level = SILENT_DBFS
        self._check = SoundCheck(SPEECH)
        with native_noise_hidden():
            self._wake = open_wake(cfg, self.missing)

    def close(self) -> None:
        self.microphone.stop()

    def listen(self, seconds: float | None, is_file: bool) -> Iterator[Moment | Heard]:
        """Until so much sound was heard, or a file has ended. Raises DeviceError when the device does not come."""
        self.microphone.start()
        ahead = deque(self._learn() if is_file else ())
        waits_until_ns = self._clock() + round(GONE_S * SECOND)
        while seconds is None or self.heard_s < seconds:
            try:
                chunk = ahead.popleft() if ahead else self.microphone.read(READ_S)
            except MicrophoneLost as err:
                yield from self._lost()
                if is_file:
                    return
                if self._clock() > waits_until_ns:
                    raise DeviceError(str(err)) from err
                continue
            if chunk is not None:
                waits_until_ns = self._clock() + round(GONE_S * SECOND)
                yield from self._hear(chunk)
            elif self._clock() > waits_until_ns:
                raise DeviceError(f"no sound within {GONE_S:.0f} s: {self.microphone.health().detail}")
        yield from self._lost()

    @property
    def heard_s(self) -> float:
        return 0.0 if self._first_ns is None else (self._end_ns - self._first_ns) / SECOND

    @property
    def trouble(self) -> str:
        """Why all that was heard so far shows nothing; empty where some of it does."""
        why = self._check.why_all if self._first_ns is not None else ""
        return f"{REASON}: {why}" if why else ""

    def report(self) -> dict[str, Any]:
        activity = dict(self._cutter.report())
        return {
            "seconds": round(self.heard_s, 2),
            "wakes": self.wakes,
            "trouble": self.trouble,
            "floor_dbfs": activity["floor_dbfs"],
            "open_ratio": activity["open_ratio"],
            "is_latched": activity["is_latched"],
            "voice_activity": activity,
            "microphone": dict(self.microphone.report()),
            "missing": self.missing,
            "utterances": [heard.as_dict() for heard in self.utterances],
        }

    def _open_model(self, cfg: EdgeConfig) -> KeywordModel | None:
        try:
            model = open_keyword_model(would_listen(cfg.voice.model, open_store(cfg)), cfg.model)
            speech_cutting(cfg.microphone, model.spec)
        except ModelError as err:
            self.missing.append(f"no words: {err}")
            return None
        return model

    def _learn(self) -> list[AudioChunk]:
        """The first seconds of a recording, read ahead: its first word may begin before any floor could be learnt."""
        ahead: list[AudioChunk] = []
        with contextlib.suppress(MicrophoneLost):  # it is shorter; who reads on is told again
            while len(ahead) * self._cfg.microphone.frame_ms < WINDOW_MS and (chunk := self.microphone.read(READ_S)):
                ahead.append(chunk)
        heard = np.concatenate([np.empty(0, np.int16), *(chunk.pcm for chunk in ahead)])
        self._cutter.learn(np.trim_zeros(heard, "b"))  # the gap behind a file is no room
        return ahead

    def _hear(self, chunk: AudioChunk) -> Iterator[Moment | Heard]:
        if self._first_ns is None:
            self._first_ns = chunk.captured_ns
        self._end_ns = chunk.captured_ns + len(chunk.pcm) * SECOND // chunk.rate_hz
        self._level = max(SILENT_DBFS, rms_dbfs(chunk.pcm))
        self._check(as_float(chunk.pcm), chunk.rate_hz)
        score = self._wake(chunk) if self._wake else 0.0
        self.wakes += self._wake is not None and score >= self._wake.least_score and not self.trouble
        for utterance in self._cutter(chunk):
            yield self._understand(utterance)
        yield self._moment(score)

    def _lost(self) -> Iterator[Heard]:
        for utterance in self._cutter.flush():
            yield self._understand(utterance)
        if self._wake:
            self._wake.reset()

    def _moment(self, wake_score: float) -> Moment:
        health = self.microphone.health()
        return Moment(
            at_s=self.heard_s,
            level_dbfs=self._level,
            floor_dbfs=float(self._cutter.report()["floor_dbfs"]),
            is_speech=self._cutter.is_open,
            wake_score=wake_score,
            is_latched=self._cutter.is_latched,
            health="" if health.state is State.OK else health.detail,
        )

    def _understand(self, utterance: Utterance) -> Heard:
        said = Transcript("", 0.0, None, "")
        scores: dict[str, float] = {}
        if self._own and self._model and not utterance.flaw:
            try:
                said = self._own.command(utterance) or self._own.spelled(utterance)
                likely = sorted(self._model(utterance.pcm).scores.items(), key=lambda item: -item[1])[:TOP]
                scores = {label: round(score, 3) for label, score in likely}
            except EdgeError as err:
                self.missing.append(str(err))
        first = self._first_ns or 0
        padding_s = utterance.padded_ms / 1000.0
        found = self._search(said.text) if said.text and said.command is None else Found()
        heard = Heard(
            start_s=round((utterance.start_ns - first) / SECOND + padding_s, 2),
            end_s=round((utterance.end_ns - first) / SECOND - padding_s, 2),
            transcript=said.text,
            confidence=round(said.confidence, 3),
            command=said.command.value if said.command else None,
            origin=said.origin,
            results=list(found.results),
            scores=scores,
            near=list(found.near),
            flaw=f"{REASON}: {utterance.flaw}" if utterance.flaw else "",
        )
        self.utterances.append(heard)
        return heard


def listen_config(cfg: EdgeConfig, file: Path | None) -> EdgeConfig:
    """The station's settings with a recording for a microphone, read as fast as it goes. Raises DeviceError."""
    if file is None:
        if cfg.microphone.driver == "off":
            raise DeviceError("this station has no microphone", "set microphone.driver, or give --file FILE.wav")
        return cfg
    wav = {"driver": "wav", "file": str(file), "paced": False, "loops": False, "rate_hz": 16_000, "gap_ms": 600}
    return cfg.model_copy(update={"microphone": cfg.microphone.model_copy(update=wav)})
