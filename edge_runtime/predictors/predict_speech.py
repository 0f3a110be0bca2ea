"""Recordings of speech, understood one by one outside the line: what `predict` prints with a keyword bundle.

The same cutting, the same recogniser and the same catalogue as the voice line's. A recording in which no utterance
stands above its own noise is taken for one as a whole.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.catalogue.catalogue import DATABASE
from edge_runtime.catalogue.searcher import Found, Searcher
from edge_runtime.catalogue.spoken import near_line
from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import SECOND
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import AudioChunk, Utterance
from edge_runtime.features.sound_validity import REASON, SPEECH, SoundCheck
from edge_runtime.features.voice_activity import VoiceActivity, speech_cutting
from edge_runtime.media.sound_file import SoundError, read_sound
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.predictors.keyword import open_keyword_model
from edge_runtime.predictors.recogniser_chain import KeywordRecogniser

TOP = 5
AFTER_S = 0.5  # of silence behind a recording, in which its last word ends
NOTHING: dict[str, Any] = {"transcript": None, "command": None, "score": None, "results": [], "near": [], "scores": {}}


class SpeechPredictor:
    """Raises ModelError when the bundle is no recogniser of words said alone."""

    def __init__(self, bundle: Bundle, cfg: EdgeConfig) -> None:
        self._model = open_keyword_model(bundle, cfg.model)
        self._own = KeywordRecogniser(self._model)
        self._search = Searcher(state_dir(cfg) / DATABASE)
        wanted = {"rate_hz": self._model.spec.rate_hz, "frame_ms": 30}
        self._cutting = speech_cutting(cfg.microphone.model_copy(update=wanted), self._model.spec)

    def file(self, path: Path) -> dict[str, Any]:
        """transcript, command, score, results, near; empty where nothing was understood, None with `error` where it
        cannot be read."""
        try:
            started = time.perf_counter()
            check = SoundCheck(SPEECH)
            sound = read_sound(path, self._cutting.rate_hz, heard=check)
            if not sound.pcm.size:
                raise SoundError(f"{path}: holds no sound")
            if why := check.why_all:
                raise SoundError(f"{REASON}: {why}")
            read = time.perf_counter()
            utterances = self._utterances(_as_pcm(sound.pcm))
            heard = [self._understand(one) for one in utterances if not one.flaw]
            if not heard:
                raise SoundError(f"{REASON}: {utterances[0].flaw}")
        except (SoundError, ModelError) as err:
            return NOTHING | {"error": str(err).removeprefix(f"{path}: ")}
        best = max(heard, key=lambda one: (bool(one["transcript"]), one["score"]))
        done = time.perf_counter()
        timings = {"read": round((read - started) * 1e3, 3), "understand": round((done - read) * 1e3, 3)}
        return best | ({"utterances": heard} if len(heard) > 1 else {}) | {"timings_ms": timings}

    def _utterances(self, pcm: NDArray[np.int16]) -> list[Utterance]:
        spec = self._cutting
        voice = VoiceActivity(spec)
        voice.learn(pcm)
        whole = np.append(pcm, np.zeros(round(AFTER_S * spec.rate_hz), np.int16))
        found = [*voice(AudioChunk(0, 0, spec.rate_hz, whole)), *voice.flush()]
        return found or [Utterance(0, whole.size * SECOND // spec.rate_hz, spec.rate_hz, whole, spec.padding_ms)]

    def _understand(self, utterance: Utterance) -> dict[str, Any]:
        said = self._own.command(utterance) or self._own.spelled(utterance)
        found = self._search(said.text) if said.text and said.command is None else Found()
        likely = sorted(self._model(utterance.pcm).scores.items(), key=lambda item: -item[1])[:TOP]
        return {
            "transcript": said.text,
            "command": said.command.value if said.command else None,
            "score": round(said.confidence, 6),
            "results": list(found.results),
            "near": list(found.near),
            "scores": {label: round(score, 6) for label, score in likely},
        }


def _as_pcm(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    pcm: NDArray[np.int16] = np.rint(sound * 32768.0).clip(-32768, 32767).astype(np.int16)
    return pcm


def text_line(entry: dict[str, Any]) -> str:
    """One entry for people."""
    what = entry["command"] or entry["transcript"] or "not understood"
    near = f"  {near_line(entry['transcript'], entry['near'])}" if entry["near"] else ""
    found = f"  -> {', '.join(entry['results'])}" if entry["results"] else near
    likely = "  ".join(f"{label} {score:.2f}" for label, score in entry["scores"].items())
    return f"{what}  {entry['score']:.3f}{found}  {entry['file']}  [{likely}]"
