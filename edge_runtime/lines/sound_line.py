"""One microphone beside one machine. Read down: this is the order in which sound travels.

    microphone --chunk--> blocks of a second --> rows --> window of the newest ten seconds   (sound thread)
    window -------------> score --> SoundWatch: smoothed, with two limits and patience --> events, metrics

Advice, never a verdict: `asks_reject` is true only where the station says so, and what becomes of it is the policy's
business. A dead microphone degrades the listening and nothing else. No sound is kept beyond the window's rows.

Sound that shows nothing (`features/sound_validity`) is neither normal nor abnormal. It is told as `sound.invalid` with
its reason and ends with `sound.valid`, when a whole window of good sound was judged; until then health is degraded. It
never begins to reject parts: the camera has looked at them, and a pulled plug is no fault of the parts. Nor does it end
an alarm that is in force: only sound that is heard says that the machine is well again.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edge_runtime.capture.microphones.microphone import Microphone, MicrophoneLost
from edge_runtime.config.schema import SoundConfig
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import EdgeError, ModelError
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import AudioChunk, Event
from edge_runtime.features.sound_validity import MACHINE, REASON, Bounds, why_invalid
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.timing import Latency
from edge_runtime.media.sound_file import resample
from edge_runtime.predictors.sound import RowStream, SoundModel

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.2
REOPEN_WAIT_S = (0.5, 1.0, 2.0, 5.0, 10.0)
BLOCK_S = 1.0  # between two judgements
BACK = Bounds(still=0.0, clipped=MACHINE.clipped)  # after a dead microphone: no rest of it in the window that is judged
HOLE_S = 0.5  # a longer gap between chunks, and what follows does not join on


class SoundTap(Protocol):
    """Who listens: journal, metrics. Returns at once and never raises."""

    def happened(self, event: Event) -> None: ...


class SoundWatch:
    """Scores in, events out; no clock and no I/O of its own.

    Smoothed scores at or over `alarm_at` for `alarm_after_s` make `sound.abnormal`; under `normal_below` for
    `normal_after_s` they make `sound.normal`. Between the two limits nothing changes. After an alarm has gone, the next
    one waits for `refractory_s`.
    """

    def __init__(self, cfg: SoundConfig, model: str) -> None:
        self._cfg = cfg
        self._model = model
        self.is_abnormal = False
        self.smoothed: float | None = None
        self._last_ns = 0
        self._since_ns: int | None = None  # since when the scores have spoken against the present state
        self._quiet_until_ns = 0
        self._worst = 0.0

    def __call__(self, score: float, at_ns: int) -> list[Event]:
        """score: 0..1 of the window that ends at `at_ns`; moments must not go back."""
        self._smooth(score, at_ns)
        level = self.smoothed or 0.0
        self._worst = max(self._worst, level) if self.is_abnormal else level
        against = level < self._cfg.normal_below if self.is_abnormal else level >= self._cfg.alarm_at
        if not against:
            self._since_ns = None
            return []
        if self._since_ns is None:
            self._since_ns = at_ns
        lasted_s = (at_ns - self._since_ns) / SECOND
        patience_s = self._cfg.normal_after_s if self.is_abnormal else self._cfg.alarm_after_s
        if lasted_s < patience_s or (not self.is_abnormal and at_ns < self._quiet_until_ns):
            return []
        return [self._turn(level, lasted_s, at_ns)]

    def forget(self) -> None:
        """Sound broke off: what comes next is smoothed anew and has to last anew. An alarm stays."""
        self.smoothed, self._since_ns = None, None

    def _smooth(self, score: float, at_ns: int) -> None:
        if self.smoothed is None or self._cfg.smooth_s == 0:
            self.smoothed = score
        else:
            weight = 1.0 - math.exp(-max(at_ns - self._last_ns, 0) / SECOND / self._cfg.smooth_s)
            self.smoothed += weight * (score - self.smoothed)
        self._last_ns = at_ns

    def _turn(self, level: float, lasted_s: float, at_ns: int) -> Event:
        self.is_abnormal, self._since_ns = not self.is_abnormal, None
        if not self.is_abnormal:
            self._quiet_until_ns = at_ns + round(self._cfg.refractory_s * SECOND)
        detail = {
            "model": self._model,
            "score": round(level, 4),
            "worst": round(max(self._worst, level), 4),
            "lasted_s": round(lasted_s, 1),
        }
        return Event(EventKind.SOUND_ABNORMAL if self.is_abnormal else EventKind.SOUND_NORMAL, at_ns, detail)


class SoundEar:
    """Chunks in, events out: the part of the line that has no thread. Also fed by whoever already reads the microphone.

    For one thread at a time.
    """

    def __init__(self, model: SoundModel, cfg: SoundConfig) -> None:
        self.model = model
        self.watch = SoundWatch(cfg, model.label)
        self._asks = cfg.reject
        self._stream = RowStream(model)
        self._rows = np.empty((0, model.mel.bands), np.float32)
        self._chunks: list[AudioChunk] = []
        self._held = 0
        self._due_ns: int | None = None
        self.counts: Counter[str] = Counter()
        self.scores: Mapping[str, float] = {}
        self.trouble = ""
        self.is_invalid = False
        self.judged = Latency()

    @property
    def asks_reject(self) -> bool:
        """The machine sounds abnormal and the station wants parts rejected for that."""
        return self._asks and self.watch.is_abnormal

    def __call__(self, chunk: AudioChunk) -> list[Event]:
        """Events that this chunk completed. Sound that cannot be judged is counted and told in `trouble`."""
        self.counts["chunks"] += 1
        if self._due_ns is not None and abs(chunk.captured_ns - self._due_ns) > HOLE_S * SECOND:
            self.forget()
        if self._chunks and chunk.rate_hz != self._chunks[0].rate_hz:
            self.forget()
        self._chunks.append(chunk)
        self._held += len(chunk.pcm)
        self._due_ns = chunk.captured_ns + len(chunk.pcm) * SECOND // chunk.rate_hz
        if self._held < BLOCK_S * chunk.rate_hz:
            return []
        sound = np.concatenate([one.pcm for one in self._chunks])
        self._chunks, self._held = [], 0
        return self._hear(sound, chunk.rate_hz, self._due_ns)

    def forget(self) -> None:
        """Sound broke off: what follows does not join on to what was."""
        self.counts["breaks"] += 1
        self._stream.reset()
        self._rows = self._rows[:0]
        self._chunks, self._held, self._due_ns = [], 0, None
        self.watch.forget()

    def report(self) -> Mapping[str, Any]:
        return {
            **self.counts,
            "model": self.model.label,
            "is_abnormal": self.watch.is_abnormal,
            "is_invalid": self.is_invalid,
            "smoothed": None if self.watch.smoothed is None else round(self.watch.smoothed, 4),
            "scores": {name: round(score, 4) for name, score in self.scores.items()},
            "judge_ms": self.judged.summary(),
        }

    def _hear(self, sound: np.ndarray[Any, np.dtype[np.int16]], rate_hz: int, end_ns: int) -> list[Event]:
        if why := why_invalid(sound, rate_hz, BACK if self.is_invalid else MACHINE):
            return self._lose(why, end_ns)
        real = sound.astype(np.float32) / np.float32(32768.0)
        rows = self._stream(resample(real, rate_hz, self.model.audio.rate_hz))
        self._rows = np.concatenate([self._rows, rows])[-self.model.memory.window_rows :]
        if len(self._rows) < self.model.memory.window_rows:
            return []
        try:
            prediction = self.model.judge(self._rows)
        except ModelError as err:
            self.counts["faults"] += 1
            self.trouble = str(err)
            return []
        self.trouble = ""
        self.scores = prediction.scores
        self.counts["judged"] += 1
        self.judged.add(sum(prediction.timings_ms.values()))
        well = [Event(EventKind.SOUND_VALID, end_ns, {"model": self.model.label})] if self.is_invalid else []
        self.is_invalid = False
        return [*well, *self.watch(prediction.score, end_ns)]

    def _lose(self, why: str, end_ns: int) -> list[Event]:
        """A second that shows nothing: what was heard before does not count any more."""
        self.counts["invalid_blocks"] += 1
        self.trouble = f"{REASON}: {why}"
        self.scores = {}
        self.forget()
        known, self.is_invalid = self.is_invalid, True
        return (
            [] if known else [Event(EventKind.SOUND_INVALID, end_ns, {"model": self.model.label, "why": self.trouble})]
        )


class SoundLine:
    """A SoundEar on a thread of its own, with a microphone of its own. open_model is called on that thread."""

    name = "sound"

    def __init__(
        self,
        *,
        microphone: Microphone,
        open_model: Callable[[], SoundModel],
        cfg: SoundConfig,
        taps: Sequence[SoundTap],
        clock: Clock,
    ) -> None:
        self.microphone = microphone
        self._open_model = open_model
        self._cfg = cfg
        self._taps = taps
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._ear: SoundEar | None = None
        self._trouble = ""
        self._progress_ns = clock()

    @property
    def asks_reject(self) -> bool:
        return self._ear is not None and self._ear.asks_reject

    def start(self) -> None:
        """Returns at once: a microphone or a model that is not there is told in health and tried again."""
        if self._thread:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        thread.join(timeout=2.0)
        self.microphone.stop()

    def health(self) -> Health:
        """At worst degraded: inspection goes on without it."""
        if self._thread is None:
            return Health(State.STOPPED)
        ear = self._ear
        trouble = self._trouble or (ear.trouble if ear else "")
        heard = self.microphone.health()
        if not trouble and heard.state in (State.FAILED, State.DEGRADED):
            trouble = heard.detail
        if trouble:
            return Health(State.DEGRADED, f"machine sound unavailable: {trouble}", self._progress_ns)
        if ear is None or not ear.counts["judged"]:
            return Health(State.STARTING, "listening, no window yet", self._progress_ns)
        detail = "the machine sounds abnormal" if ear.watch.is_abnormal else ""
        return Health(State.DEGRADED if ear.watch.is_abnormal else State.OK, detail, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        ear = self._ear
        return {**(ear.report() if ear else {}), "microphone": dict(self.microphone.report())}

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            try:
                if self._ear is None:
                    self._ear = SoundEar(self._open_model(), self._cfg)
                self.microphone.start()
                self._trouble, attempt = "", 0
                self._listen(self._ear)
            except EdgeError as err:
                self._trouble = str(err)
                log.warning("sound unavailable error=%s", err)
            except Exception as err:  # the one broad catch of this thread: listening starts over, the box goes on
                self._trouble = f"{type(err).__name__}: {err}"
                log.exception("sound failed")
            self.microphone.stop()
            self._progress_ns = self._clock()
            self._stop.wait(REOPEN_WAIT_S[min(attempt, len(REOPEN_WAIT_S) - 1)])
            attempt += 1

    def _listen(self, ear: SoundEar) -> None:
        while not self._stop.is_set():
            self._progress_ns = self._clock()
            try:
                chunk = self.microphone.read(READ_TIMEOUT_S)
            except MicrophoneLost:
                ear.forget()
                self._stop.wait(READ_TIMEOUT_S)  # a file that has ended says so at every read
                continue
            for event in ear(chunk) if chunk else ():
                facts = " ".join(f"{name}={value}" for name, value in event.detail.items())
                log.warning("%s %s", event.kind, facts)
                for tap in self._taps:
                    tap.happened(event)
