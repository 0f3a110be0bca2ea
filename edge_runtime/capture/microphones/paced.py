"""A microphone that is not there: sound from memory, handed out at the moments at which a real one would have it.

It needs no thread: each chunk's moment follows from its number, and `read` waits for it. As from a real microphone,
what is not fetched within five seconds is overwritten.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.capture.microphones.audio_ring import RING_S
from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.capture.microphones.sound_watch import SoundWatch
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import Health, State

log = logging.getLogger(__name__)


class Sound(Protocol):
    """Where a paced microphone has its sound from."""

    def next(self, samples: int) -> NDArray[np.int16] | None:
        """The next samples, shape (samples,), or None at the end."""

    def describe(self) -> str:
        """For the health line, in a few words."""


class Mood(Protocol):
    """How the device behaves: where it does not answer, and how much later or earlier than asked it hands out."""

    def lost(self, at_ns: int) -> str:
        """Why there is no device `at_ns` after the start, "" while there is one."""

    def due_ns(self, end_ns: int) -> int:
        """When the chunk that ends `end_ns` after the start is handed out, counted from the start."""

    def bend(self, pcm: NDArray[np.int16], at_ns: int) -> NDArray[np.int16]: ...


class PacedMicrophone:
    """Hands out chunks of a Sound. Sequence and time of capture grow over restarts; a restart leaves a hole in both."""

    def __init__(
        self,
        driver: str,
        cfg: MicrophoneConfig,
        clock: Clock,
        make_sound: Callable[[], Sound],
        mood: Mood | None = None,
    ) -> None:
        self.name = cfg.name
        self._driver, self._clock, self._make_sound, self._mood = driver, clock, make_sound, mood
        self._rate_hz, self._size = cfg.rate_hz, cfg.rate_hz * cfg.frame_ms // 1000
        self._frame_ns = cfg.frame_ms * MS
        self._is_paced = driver == "sim" or cfg.paced
        self._watch = SoundWatch(cfg.rate_hz, cfg.silent_after_s if driver == "sim" else 0.0, self._is_paced)
        self._changed = threading.Condition()
        self._sound: Sound | None = None
        self._start_ns = self._index = 0  # of the stream; chunks since then
        self._seq = self._captured_ns = -1  # of the last chunk
        self._restarts = self._overwritten = 0
        self._is_lost = False

    def start(self) -> None:
        with self._changed:
            if self._sound is None:
                self._sound = self._make_sound()
                self._watch.opened()
                self._start_ns = max(self._clock(), self._captured_ns + self._frame_ns)
                self._index, self._is_lost = 0, False
                self._seq += self._seq >= 0

    def stop(self) -> None:
        with self._changed:
            self._sound = None
            self._changed.notify_all()

    def health(self) -> Health:
        sound = self._sound
        return Health(State.STOPPED) if sound is None else self._watch.health(sound.describe())

    def report(self) -> Mapping[str, Any]:
        return {
            "driver": self._driver,
            "chunks": self._watch.chunks,
            "overruns": 0,
            "overwritten": self._overwritten,
            "clipped_chunks": self._watch.clipped_chunks,
            "silent_chunks": self._watch.silent_chunks,
            "restarts": self._restarts,
        }

    def read(self, timeout_s: float) -> AudioChunk | None:
        give_up_ns = self._clock() + round(timeout_s * SECOND)
        with self._changed:
            while self._sound is not None:
                now_ns = self._clock()
                due_ns = self._due_ns()
                why = self._mood.lost(now_ns - self._start_ns) if self._mood else ""
                if not why and due_ns <= now_ns:
                    return self._take(self._sound, due_ns, now_ns)
                if not self._is_lost:
                    self._check(why or self._watch.waited(now_ns))
                if now_ns >= give_up_ns:
                    return None
                wake_ns = min(give_up_ns, due_ns if due_ns > now_ns else give_up_ns, now_ns + self._frame_ns)
                self._changed.wait((wake_ns - now_ns) / SECOND)
        return None

    def _take(self, sound: Sound, due_ns: int, now_ns: int) -> AudioChunk:
        behind = (now_ns - due_ns - round(RING_S * SECOND)) // self._frame_ns if self._is_paced else 0
        if behind > 0 and not self._is_lost:
            for _ in range(behind):
                sound.next(self._size)
            self._index, self._seq = self._index + behind, self._seq + behind
            self._overwritten += behind
            due_ns += behind * self._frame_ns
            self._watch.opened()  # the hole is the reader's
        if self._is_lost:  # what would have been heard meanwhile was not
            self._is_lost = False
            self._restarts += 1
            self._seq += 1
            self._index = max(self._index, (now_ns - self._start_ns) // self._frame_ns - 1)
            due_ns = now_ns
        pcm = sound.next(self._size)
        if pcm is None:
            self._watch.failed(f"the end of {sound.describe()}")
            raise MicrophoneLost(f"microphone '{self.name}': {self._watch.complaint}")
        if self._mood:
            pcm = self._mood.bend(pcm, self._index * self._frame_ns)
        self._captured_ns = max(self._captured_ns + 1, self._first_sample_ns(due_ns))
        self._index, self._seq = self._index + 1, self._seq + 1
        pcm.flags.writeable = False
        self._check(self._watch.heard(pcm, due_ns))
        return AudioChunk(self._seq, self._captured_ns, self._rate_hz, pcm)

    def _check(self, fault: str) -> None:
        if fault:
            self._watch.failed(fault)
            self._is_lost = True
            log.warning("microphone lost name=%s why=%s", self.name, fault)
            raise MicrophoneLost(f"microphone '{self.name}': {fault}")

    def _first_sample_ns(self, due_ns: int) -> int:
        if self._is_paced:
            return due_ns - self._frame_ns
        return self._start_ns + self._index * self._frame_ns  # runs with the sound, not with the clock

    def _due_ns(self) -> int:
        if not self._is_paced:
            return self._start_ns  # at once
        end_ns = (self._index + 1) * self._frame_ns
        return self._start_ns + (self._mood.due_ns(end_ns) if self._mood else end_ns)
