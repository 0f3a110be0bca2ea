"""One microphone to one operator. Read down: this is the order in which a word travels.

    microphone --chunk-----> level, ring, wake word        (voice thread)
    window open -----------> voice activity -> utterance
    utterance -------------> recogniser -> transcript -> search
    dialog ----------------> sound, screen, a moment to cancel, act, journal

Everything runs on one thread of its own; nothing here is on the way of a part. A dead microphone degrades the voice and
nothing else: its driver brings it back, and the line listens on. Sound stays in memory: the driver's ring holds the
newest seconds, and an utterance is written to a file only where the station says so.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from edge_runtime.capture.microphones.microphone import Microphone, MicrophoneLost
from edge_runtime.catalogue.searcher import Found
from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.messages import AudioChunk, OperatorRequest, Utterance
from edge_runtime.decision.dialog import Act, Beep, Dialog, Mode, Noted, Sound, ToDo
from edge_runtime.features.audio_level import rms_dbfs
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.timing import Latency
from edge_runtime.lines.understanding import Recogniser, Search, Understanding, near
from edge_runtime.lines.wake_ear import WakeEar, WakeWord

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.1  # the dialog's clock goes on while no sound comes
START_WAIT_S = (0.25, 0.5, 1.0, 2.0, 5.0)  # between attempts, while the station file names what is not there
SILENT_DBFS = -100.0  # shown for digital silence, whose loudness JSON has no number for
LATCHED = "sound like speech without an end for 30 s"
LATCHED_FIX = "use the talk key, move the microphone or look for the noise"
EARLY_NS = 300 * MS  # people begin to speak while they press the key
RECENT = 12  # requests kept for the screen


class SpeechCutter(Protocol):
    """Voice activity: chunks in, utterances out."""

    @property
    def is_open(self) -> bool: ...

    @property
    def is_latched(self) -> bool:
        """Open for so long that it cannot be speech."""

    def __call__(self, chunk: AudioChunk) -> list[Utterance]: ...

    def flush(self) -> list[Utterance]:
        """What is in work, and a fresh start."""

    def report(self) -> Mapping[str, Any]: ...


class VoiceTap(Protocol):
    """Who listens: journal, metrics. Returns at once and never raises."""

    def requested(self, request: OperatorRequest) -> None: ...


class VoiceLine:
    """See the module. `carry_out`, `play` and `keep_audio` are called on the voice thread and must be quick.

    wake: None listens for the key only. keep_audio: writes an utterance and answers the file's name; None keeps none.
    deaf_ms: so long after a sound of its own the line does not listen, or it would hear itself; 0 where it is silent.
    """

    name = "voice"

    def __init__(
        self,
        *,
        microphone: Microphone,
        wake: WakeWord | None,
        wake_at: float,
        cutter: SpeechCutter,
        recognise: Recogniser,
        search: Search,
        dialog: Dialog,
        carry_out: Callable[[Act], None],
        play: Callable[[Sound], None],
        keep_audio: Callable[[Utterance], str] | None,
        taps: Sequence[VoiceTap],
        clock: Clock,
        deaf_ms: int = 0,
    ) -> None:
        self.microphone = microphone
        self._wake = WakeEar(wake, wake_at) if wake else None
        self._cutter = cutter
        self._understanding = Understanding(recognise, search, keep_audio)
        self._dialog = dialog
        self._carry_out = carry_out
        self._play = play
        self._taps = taps
        self._clock = clock
        self._deaf_ns = deaf_ms * MS
        self._deaf_until_ns = 0
        self._opened_ns = 0  # the wake word, the key
        self._lock = threading.Lock()  # around the dialog: keys and typed text come from other threads
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._progress_ns = clock()
        self._counts: Counter[str] = Counter()
        self._level_dbfs = SILENT_DBFS
        self._requests = 0
        self.recent: deque[OperatorRequest] = deque(maxlen=RECENT)
        self.word_to_event = Latency()  # end of the word to what is done about it, without the moment to cancel

    # -- component ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns at once: a microphone that is not there is told in health and tried again."""
        if self._thread:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="voice", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        thread.join(timeout=2.0)
        self.microphone.stop()

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        if self._trouble:
            return Health(State.DEGRADED, f"voice unavailable: {self._trouble}", self._progress_ns)
        heard = self.microphone.health()
        if heard.state in (State.FAILED, State.DEGRADED):
            return Health(State.DEGRADED, f"voice unavailable: {heard.detail}", self._progress_ns)
        if self._cutter.is_latched:
            return Health(State.DEGRADED, f"{LATCHED}: {LATCHED_FIX}", self._progress_ns)
        return Health(heard.state, heard.detail, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {
            **self._counts,
            **(self._wake.counts if self._wake else {}),
            **self._understanding.counts,
            "mode": self._dialog.mode.value,
            "says": self._dialog.says,
            "shown": list(self._dialog.shown),
            "wake_score": round(self._wake.score, 3) if self._wake else 0.0,
            "level_dbfs": round(self._level_dbfs, 1),
            "is_speech": self._cutter.is_open,
            "recogniser": dict(self._understanding.report()),
            "microphone": dict(self.microphone.report()),
            "voice_activity": dict(self._cutter.report()),
            "word_to_event_ms": self.word_to_event.summary(),
            "requests": self._requests,
            "recent": [_recent(request) for request in list(self.recent)],
        }

    # -- keys and keyboards: any thread -------------------------------------------------------------------------------

    def push(self) -> str:
        """The talk key. Answers what the screen says now."""
        return self._tell(lambda now: self._dialog.open("button", now))

    def cancel(self) -> str:
        return self._tell(self._dialog.cancel)

    def ask(self, text: str) -> Found:
        """A typed search."""
        found = self._understanding.search(text)
        self._tell(lambda now: self._dialog.typed(text, found.results, now, near(text, found)))
        return found

    def choose(self, code: str) -> str:
        """One of the results on the screen was taken."""
        return self._tell(lambda _: self._dialog.choose(code))

    def set_automation(self, degree: Automation) -> None:
        with self._lock:
            self._dialog.automation = degree

    def _tell(self, what: Callable[[int], list[ToDo]]) -> str:
        with self._lock:
            todo = what(self._clock())
        self._do(todo)
        return self._dialog.says

    # -- voice thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        for wait_s in itertools.chain(START_WAIT_S, itertools.repeat(START_WAIT_S[-1])):
            try:
                self.microphone.start()
            except Exception as err:  # what only the station file can mend, or a bug; a file may appear
                if str(err) != self._trouble:
                    log.error("voice.unavailable %s", err, exc_info=not isinstance(err, EdgeError))
                self._trouble = str(err)
                self._wait(wait_s)
            else:
                self._listen()
            if self._stop.is_set():
                return

    def _listen(self) -> None:
        self._start_anew()
        while not self._stop.is_set():
            try:
                self._turn()
                self._trouble = ""
            except Exception as err:  # the thread's outermost loop: nothing but `stop` may end it
                log.exception("voice failed; goes on")
                self._counts["faults"] += 1
                self._trouble = f"unexpected {type(err).__name__}: {err}"
                self._start_anew()
                self._stop.wait(READ_TIMEOUT_S)

    def _wait(self, seconds: float) -> None:
        """Until the next attempt; the dialog's clock goes on, because a key may have opened a window."""
        until_ns = self._clock() + round(seconds * SECOND)
        while not self._stop.is_set() and self._clock() < until_ns:
            self._tick()
            self._stop.wait(READ_TIMEOUT_S)

    def _turn(self) -> None:
        try:
            chunk = self.microphone.read(READ_TIMEOUT_S)
        except MicrophoneLost as err:  # the driver brings it back, with pauses of its own
            log.warning("voice.lost %s", err)
            self._counts["lost"] += 1
            self._start_anew()
            self._stop.wait(READ_TIMEOUT_S)
        else:
            if chunk is not None:
                self._hear(chunk)
        self._tick()

    def _start_anew(self) -> None:
        """What comes now does not join on to what was."""
        self._cutter.flush()
        if self._wake:
            self._wake.start_anew()

    def _tick(self) -> None:
        self._progress_ns = self._clock()
        self._tell(self._dialog.tick)

    def _hear(self, chunk: AudioChunk) -> None:
        self._counts["chunks"] += 1
        self._level_dbfs = max(SILENT_DBFS, rms_dbfs(chunk.pcm))
        if chunk.captured_ns < self._deaf_until_ns:
            return  # the hole it leaves in the numbers ends what the listeners had in work
        utterances = self._cutter(chunk)
        if self._wake and self._dialog.mode in (Mode.IDLE, Mode.SHOWN) and self._wake.hears_it(chunk):
            self._counts["wakes"] += 1
            self._cutter.flush()  # the wake word itself is no command
            self._tell(lambda now: self._dialog.open("wake", now))
            return
        if self._cutter.is_open:
            self._dialog.speech(self._clock())
        for utterance in utterances:
            self._counts["utterances"] += 1
            if self._dialog.mode in (Mode.WINDOW, Mode.PENDING) and self._is_meant(utterance):
                self._answer(utterance)

    def _is_meant(self, utterance: Utterance) -> bool:
        """Not what somebody was saying already when the key was pressed."""
        return utterance.start_ns + utterance.padded_ms * MS >= self._opened_ns - EARLY_NS

    def _answer(self, utterance: Utterance) -> None:
        heard = self._understanding.of(utterance)
        self._tell(lambda now: self._dialog.heard(heard, now))
        word_ended_ns = utterance.end_ns - utterance.padded_ms * MS
        self.word_to_event.add((self._clock() - word_ended_ns) / MS)

    # -- what follows -------------------------------------------------------------------------------------------------

    def _do(self, todo: Sequence[ToDo]) -> None:
        refused = ""
        for one in todo:
            match one:
                case Beep():
                    if one.sound is Sound.OPEN:
                        self._opened_ns = self._clock()
                    self._deaf_until_ns = self._clock() + self._deaf_ns
                    self._play(Sound.SORRY if refused and one.sound is Sound.DONE else one.sound)
                case Act():
                    refused = self._act(one)
                case Noted():
                    request = replace(one.request, outcome="refused", reason=refused) if refused else one.request
                    self._note(request)

    def _act(self, act: Act) -> str:
        """Why it was not carried out, or empty."""
        try:
            self._carry_out(act)
        except EdgeError as err:
            log.error("voice.refused command=%s %s", act.command.value, err)
            return str(err)
        self._counts[f"act.{act.command.value}"] += 1
        return ""

    def _note(self, request: OperatorRequest) -> None:
        self._counts[f"request.{request.outcome}"] += 1
        self._requests += 1
        self.recent.append(request)
        for tap in self._taps:
            tap.requested(request)


def _recent(request: OperatorRequest) -> dict[str, Any]:
    return {
        "source": request.source,
        "transcript": request.transcript,
        "confidence": round(request.confidence, 3),
        "command": request.command.value if request.command else None,
        "results": list(request.results),
        "choice": request.choice,
        "outcome": request.outcome,
        "reason": request.reason,
    }
