"""A voice line with a scripted microphone: the sound and the moment of everything is in the script, and time is its.

The voice detector, the dialog, the search and the threads are the real ones.
"""

from __future__ import annotations

import threading
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.catalogue.searcher import Found
from edge_runtime.config.schema import Automation, SimSoundConfig
from edge_runtime.core.clock import ManualClock
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.messages import AudioChunk, Command, OperatorRequest, Utterance
from edge_runtime.decision.dialog import Act, Dialog
from edge_runtime.features.voice_activity import VoiceActivity, VoiceActivitySpec
from edge_runtime.flow.components import Health, State
from edge_runtime.inference.speech_answer import Transcript
from edge_runtime.lines.voice_line import VoiceLine
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.simulation.sound import SimSound
from tests.support.waiting import until

RATE_HZ, CHUNK, CHUNK_MS = 16_000, 480, 30
I16 = NDArray[np.int16]
Step = I16 | Exception | Callable[[], object]


def keyword_bundle() -> Bundle:
    """The shipped bundle of commands."""
    try:
        return ModelStore("/nonexistent").resolve("commands-embed")
    except EdgeError as err:
        pytest.skip(f"no keyword bundle is shipped: {err}")


def golden(bundle: Bundle, name: str) -> I16:
    """One of the recordings that a bundle is checked with."""
    with wave.open(str(bundle.folder / "golden" / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def write_wav(path: Path, pcm: I16) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def quiet(seconds: float) -> I16:
    """A quiet room: digital silence is none."""
    return np.random.default_rng(3).integers(-3, 4, round(seconds * RATE_HZ)).astype(np.int16)


def burst() -> I16:
    """Half a second that the voice detector takes for speech, and nobody for a word."""
    sound = SimSound(SimSoundConfig(words_per_min=30, noise_dbfs=-85), "", RATE_HZ)
    pcm = np.concatenate([sound.next(RATE_HZ) for _ in range(8)])
    start, end = sound.spoken[0]
    return pcm[round(start * RATE_HZ) : round(end * RATE_HZ)].astype(np.int16)


class ScriptedMicrophone:
    """Plays a script, a chunk at a time; after it, time goes on in silence without chunks."""

    name = "mic0"

    def __init__(self, script: Sequence[Step], clock: ManualClock) -> None:
        self.done = threading.Event()
        self.starts = self.stops = 0
        self.fails_to_start: list[Exception] = []
        self._clock = clock
        self._seq = 0
        self._steps: list[Step] = []
        for step in script:
            if isinstance(step, np.ndarray):
                self._steps += [step[at : at + CHUNK] for at in range(0, len(step) - CHUNK + 1, CHUNK)]
            else:
                self._steps.append(step)

    def start(self) -> None:
        self.starts += 1
        if self.fails_to_start:
            raise self.fails_to_start.pop(0)

    def stop(self) -> None:
        self.stops += 1

    def health(self) -> Health:
        return Health(State.OK, "scripted")

    def report(self) -> Mapping[str, Any]:
        return {"chunks": self._seq}

    def read(self, timeout_s: float) -> AudioChunk | None:
        if not self._steps:
            self.done.set()
            time.sleep(0.0005)  # hands the interpreter to whoever waits; the script's own time jumps
            self._clock.advance_ms(timeout_s * 1000)
            return None
        step = self._steps.pop(0)
        if isinstance(step, np.ndarray):
            captured_ns = self._clock()
            self._clock.advance_ms(CHUNK_MS)
            self._seq += 1
            return AudioChunk(self._seq - 1, captured_ns, RATE_HZ, step)
        if isinstance(step, Exception):
            self._seq += 1
            raise step
        step()
        return None


class Says:
    """A recogniser that answers from a list, in order; an exception is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.heard: list[Utterance] = []

    def __call__(self, utterance: Utterance) -> Transcript:
        self.heard.append(utterance)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        command = Command(answer) if answer in {one.value for one in Command} else None
        return Transcript(answer, 0.9, command, "script@1")

    def report(self) -> Mapping[str, Any]:
        return {"left": len(self.answers)}


class Rig:
    """Everything around one voice line. Use `with`."""

    def __init__(self, script: Sequence[Step], recognise: Any, **parts: Any) -> None:
        self.clock = ManualClock()
        self.microphone = ScriptedMicrophone(script, self.clock)
        self.requests: list[OperatorRequest] = []
        self.acts: list[Act] = []
        self.sounds: list[str] = []
        self.found = Found(("A742",))
        defaults: dict[str, Any] = {
            "wake": None,
            "wake_at": 0.9,
            "cutter": VoiceActivity(VoiceActivitySpec()),
            "dialog": Dialog(Automation.PARTIAL),
            "keep_audio": None,
        }
        self.line = VoiceLine(
            microphone=self.microphone,
            recognise=recognise,
            search=lambda text: self.found,
            carry_out=self.acts.append,
            play=lambda sound: self.sounds.append(sound.value),
            taps=[self],
            clock=self.clock,
            **{**defaults, **parts},
        )

    def requested(self, request: OperatorRequest) -> None:
        self.requests.append(request)

    def __enter__(self) -> Rig:
        self.line.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.line.stop()

    def until(self, claim: Callable[[], object]) -> None:
        until(claim, why=self.line.report)

    def play_out(self) -> None:
        """Until the script is over and the dialog has come to rest."""
        self.until(self.microphone.done.is_set)
        self.until(lambda: self.line.report()["mode"] == "idle")
