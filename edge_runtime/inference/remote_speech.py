"""A speech server, asked from the process that has no network: over a unix socket to `edge-runtime serve`.

The sound is handed over and the answer fetched later, so that the box works on the same utterance meanwhile. A server
that does not answer must not cost every request its share of the time: after MISSES in a row it is left alone, for
longer each time, and then asked again.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError, EdgeError
from edge_runtime.core.messages import Utterance
from edge_runtime.inference.speech_answer import SpeechAnswer
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import connected

log = logging.getLogger(__name__)

HAND_OVER_S = 0.05  # of the voice thread's time; a process on the same box takes 1 ms
MISSES = 2
REST_S = (5.0, 15.0, 60.0)
MOST_TEXT = 500  # characters; more is no request


class RemoteSpeech:
    """One utterance at a time, one connection each. For one thread; `report` may be called from others."""

    label = "remote"
    may_command = True  # it is asked because it understands better

    def __init__(self, path: Path, share_s: float, clock: Clock) -> None:
        """path: where `serve` listens. share_s: how long the answer may take."""
        self.share_s = share_s
        self._path = path
        self._clock = clock
        self._sock: socket.socket | None = None
        self._misses = 0
        self._rests_until_ns = 0
        self._trouble = ""
        self._counts: Counter[str] = Counter()

    def begin(self, utterance: Utterance) -> None:
        """Raises DeviceError when `serve` is not there, or the server is being left alone."""
        self.drop()
        if self._clock() < self._rests_until_ns:
            self._counts["rested"] += 1
            raise DeviceError(f"left alone for a while: {self._trouble}")
        header = {
            "do": "recognise",
            "rate_hz": utterance.rate_hz,
            "samples": len(utterance.pcm),
            "within_ms": round(self.share_s * 1000),
        }
        try:
            self._sock = connected(self._path, HAND_OVER_S)
            self._sock.sendall(as_line(header) + np.ascontiguousarray(utterance.pcm, "<i2").tobytes())
        except OSError as err:
            self.drop()
            self._missed(f"edge-runtime serve does not take it on {self._path} ({err.strerror or err})")
            raise DeviceError(self._trouble) from err
        self._counts["asked"] += 1

    def answer(self, timeout_s: float) -> SpeechAnswer:
        """Raises DeviceError when there is none in time, or none that can be used."""
        sock, self._sock = self._sock, None
        if sock is None:
            raise DeviceError("nothing was asked")
        with sock:
            try:
                said = Lines(sock, max(timeout_s, 0.001)).line()
                answer = _answer(said)
            except TimeoutError as err:
                self._missed("no answer in time")
                raise DeviceError(self._trouble) from err
            except (OSError, EdgeError) as err:
                self._missed(str(err))
                raise DeviceError(self._trouble) from err
        self._misses, self._trouble = 0, ""
        self._counts["answered"] += 1
        return answer

    def drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def stop(self) -> None:
        self.drop()

    def report(self) -> Mapping[str, Any]:
        return {**self._counts, "trouble": self._trouble}

    def _missed(self, why: str) -> None:
        self._trouble = why
        self._misses += 1
        self._counts["missed"] += 1
        if self._misses >= MISSES:
            rest_s = REST_S[min(self._misses - MISSES, len(REST_S) - 1)]
            self._rests_until_ns = self._clock() + round(rest_s * SECOND)
            log.warning("speech.server rests_s=%.0f why=%s", rest_s, why)


def _answer(said: Mapping[str, Any]) -> SpeechAnswer:
    """Raises DeviceError on a refusal and on what is no answer."""
    if "error" in said:
        raise DeviceError(str(said["error"])[:MOST_TEXT])
    text, confidence, origin = said.get("text"), said.get("confidence"), said.get("origin")
    if not isinstance(text, str) or not isinstance(confidence, int | float) or not isinstance(origin, str):
        raise DeviceError(f"no answer: {str(said)[:MOST_TEXT]}")
    return SpeechAnswer(text[:MOST_TEXT], float(confidence), origin[:MOST_TEXT])
