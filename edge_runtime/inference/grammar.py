"""Speech to words by the station's own grammar: codes, names of the catalogue, commands. Extra `voice-search`.

The search runs in a child process (`grammar_child.py`), which is started again when it dies, hangs, or when the
catalogue has changed. Nothing here waits for it but `answer`, and that for as long as it is told.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import numpy as np

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError, ModelError, ProtocolError
from edge_runtime.core.messages import Utterance
from edge_runtime.inference.grammar_words import GrammarWords, is_whole
from edge_runtime.inference.speech_answer import SpeechAnswer
from edge_runtime.process.child import ChildProcess
from edge_runtime.process.json_lines import Lines, as_line

log = logging.getLogger(__name__)

MODULE = "edge_runtime.inference.grammar_child"
PACKAGE = "pocketsphinx"
RATE_HZ = 16_000
SEND_S = 0.05
STUCK_NS = 5 * SECOND  # a search that takes so long never ends
READY_NS = 60 * SECOND  # to load the models on a slow card
AGAIN_NS = 5 * SECOND  # between starts
LEAST_MARGIN = -2.0  # nats a frame of speech under the phone loop; `tools/bench/voice_grammar` says what that costs
MOST_SILENCE = 0.3  # share of the speech that the grammar takes for silence
MOST_UNHEARD = 0.02  # share of the frames after the last one that the answer explains
SURE_MARGIN = -1.0


def is_installed() -> bool:
    return find_spec(PACKAGE) is not None


class Grammar:
    """For one thread at a time; `report` may be called from others.

    words: what it takes, and a key that changes when that does; asked before each utterance, so it must be quick.
    """

    label = "grammar"
    may_command = False  # it knows the commands so that they are taken for nothing else; the keyword bundle is stricter

    def __init__(
        self,
        words: Callable[[], GrammarWords],
        version: Callable[[], Hashable],
        share_s: float,
        clock: Clock,
    ) -> None:
        """Raises ModelError where pocketsphinx is not installed. version: changes when `words` would."""
        if not is_installed():
            raise ModelError("a spoken grammar needs pocketsphinx", "pip install 'edge-runtime[voice-search]'")
        self.share_s = share_s
        self._words = words
        self._version = version
        self._clock = clock
        self._process: ChildProcess | None = None
        self._said: Lines | None = None  # by that process
        self._given = GrammarWords((), (), (), ())
        self._knows: Hashable = None
        self._is_ready = False
        self._began_ns = 0  # of the start, or of the search in work
        self._next_start_ns = 0
        self._busy_with: int | None = None
        self._asked = 0
        self._left_out: list[str] = []
        self._last: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()

    # -- component ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns at once; the models load meanwhile."""
        if self._process is None:
            self._spawn()

    def stop(self) -> None:
        process, self._process, self._said = self._process, None, None
        if process:
            process.end()
        self._is_ready, self._busy_with = False, None

    @property
    def pid(self) -> int | None:
        """The child, while there is one."""
        process = self._process
        return process.pid if process else None

    def report(self) -> Mapping[str, Any]:
        return {**self._counts, "left_out": self._left_out[:20], **self._last}

    # -- hearing ------------------------------------------------------------------------------------------------------

    def begin(self, utterance: Utterance) -> None:
        """Hand the sound over. Raises DeviceError while it loads or is still at the utterance before."""
        if utterance.rate_hz != RATE_HZ:
            raise DeviceError(f"the grammar hears {RATE_HZ} Hz, the microphone gives {utterance.rate_hz}")
        self._look_after()
        if not self._is_ready or self._busy_with is not None:
            self._counts["busy" if self._is_ready else "loading"] += 1
            raise DeviceError("still at the utterance before" if self._is_ready else "still loading")
        self._asked += 1
        pcm = np.ascontiguousarray(utterance.pcm, "<i2").tobytes()
        self._send({"do": "hear", "id": self._asked, "bytes": len(pcm)}, pcm)
        self._busy_with, self._began_ns = self._asked, self._clock()
        self._counts["asked"] += 1

    def answer(self, timeout_s: float) -> SpeechAnswer:
        """An empty text: none of its phrases. Raises DeviceError when there is no answer in time."""
        until_ns = self._clock() + round(timeout_s * SECOND)
        while self._busy_with is not None:
            said = self._next((until_ns - self._clock()) / SECOND)
            if said is None:
                self._counts["late"] += 1
                raise DeviceError("no answer in time")
            if said.get("id") == self._asked:
                return self._judged(said)
        raise DeviceError("nothing was asked")

    def drop(self) -> None:
        """The search goes on, its answer is thrown away when it comes."""

    def _judged(self, said: Mapping[str, Any]) -> SpeechAnswer:
        if "error" in said:
            self._counts["failed"] += 1
            raise DeviceError(f"the grammar failed: {said['error']}")
        self._last = {"last_ms": round(float(said["ms"]), 1), "last_margin": round(float(said["margin"]), 2)}
        is_heard = fits(said) and is_whole(str(said["text"]), self._given)
        self._counts["heard" if is_heard else "rejected"] += 1
        if not is_heard:
            return SpeechAnswer("", 0.0, self.label)
        return SpeechAnswer(str(said["text"]), confidence(float(said["margin"])), self.label)

    # -- the child ----------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Take what it said meanwhile; start it anew when it died, hangs, or knows an old catalogue."""
        while self._process is not None and self._next(0.0) is not None:
            pass
        waited_ns = self._clock() - self._began_ns
        if self._process is not None and self._version() != self._knows:
            self._counts["catalogue_changed"] += 1
            self.stop()
        elif self._process is not None and (
            waited_ns > (STUCK_NS if self._is_ready else READY_NS) and (self._busy_with or not self._is_ready)
        ):
            log.error("grammar.stuck after_s=%.1f; started anew", waited_ns / SECOND)
            self._counts["stuck"] += 1
            self.stop()
        if self._process is None:
            self._spawn()

    def _spawn(self) -> None:
        if self._clock() < self._next_start_ns:
            raise DeviceError("the grammar does not run; it is started again in a moment")
        self._next_start_ns = self._clock() + AGAIN_NS
        self._given, self._knows = self._words(), self._version()
        try:
            self._process = ChildProcess(MODULE)
        except OSError as err:
            raise DeviceError(f"the grammar cannot be started: {err}") from err
        self._said = Lines(self._process.channel, 0.0)
        self._began_ns = self._clock()
        self._counts["starts"] += 1
        self._send({"do": "words", "words": asdict(self._given)})

    def _send(self, request: Mapping[str, Any], pcm: bytes = b"") -> None:
        assert self._process is not None
        try:
            self._process.send(as_line(request) + pcm, SEND_S)
        except OSError as err:
            self._counts["died"] += 1
            self.stop()
            raise DeviceError(f"the grammar does not listen ({err}); it is started again") from err

    def _next(self, timeout_s: float) -> dict[str, Any] | None:
        """What the child says next, or None when it says nothing in time. Raises DeviceError when it died."""
        if self._said is None:
            return None
        try:
            said = self._said.within(max(0.0, timeout_s)).line()
        except TimeoutError:
            return None
        except (OSError, ProtocolError) as err:
            self._counts["died"] += 1
            self.stop()
            raise DeviceError("the grammar's process died; it is started again") from err
        self._note(said)
        return said

    def _note(self, said: Mapping[str, Any]) -> None:
        if said.get("ready"):
            self._is_ready, self._left_out = True, [str(phrase) for phrase in said["left_out"]]
            if self._left_out:
                log.warning("grammar.left_out %s: words that the dictionary lacks", "; ".join(self._left_out[:20]))
        elif said.get("id") == self._busy_with:
            self._busy_with = None
        if "error" in said and not self._is_ready:
            log.error("grammar.refused %s", said["error"])


def fits(said: Mapping[str, Any]) -> bool:
    """Whether the sound is what the grammar made of it, as far as scores tell."""
    return (
        bool(said["text"])
        and float(said["margin"]) >= LEAST_MARGIN
        and float(said["silence"]) <= MOST_SILENCE
        and float(said["unheard"]) <= MOST_UNHEARD
    )


def confidence(margin: float) -> float:
    """0..1: 0.5 at the least margin that counts."""
    return 1.0 / (1.0 + math.exp(-4.0 * (margin - LEAST_MARGIN) / (SURE_MARGIN - LEAST_MARGIN)))
