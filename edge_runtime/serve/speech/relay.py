"""From the voice line to a speech server in the house: utterances in over a unix socket, transcripts out.

`run` has no network; this is the only way by which an operator's voice can leave the box, and it is shut unless
`voice.remote.may_leave` says so: the station file is refused without it, and the relay looks again. Nothing is kept and
no transcript is logged. The server may be dead, slow or hostile: an answer is bounded in time and size, and the few
threads that wait for it are all it can hold up.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.config.schema import RemoteSpeechConfig
from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError, EdgeError, ProtocolError
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.timing import Latency
from edge_runtime.inference.speech_wire import MOST_SECONDS
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import UnixServer
from edge_runtime.serve.deadline import Deadline
from edge_runtime.serve.speech.server import Speech
from edge_runtime.serve.speech.servers import open_speech_server

log = logging.getLogger(__name__)

MOST_CLIENTS = 4  # one voice line asks one thing at a time; more are those it gave up
HAND_OVER_S = 1.0  # for a client to say what it wants
MOST_WITHIN_MS = 10_000
RATES_HZ = (8000, 16_000, 32_000, 48_000)


class SpeechRelay:
    """A component. `path` is the unix socket; only root, the own user and the own group can open it."""

    name = "speech"

    def __init__(self, cfg: RemoteSpeechConfig, path: Path, clock: Clock = monotonic_ns) -> None:
        """Raises ConfigError when the url is none that can be asked."""
        self.path = path
        self._cfg = cfg
        self._clock = clock
        self._server = open_speech_server(cfg.url, cfg.model) if cfg.url else None
        self._socket = UnixServer(
            path, "speech", self._reply, most_clients=MOST_CLIENTS, send_s=HAND_OVER_S, clock=clock
        )
        self._counts: Counter[str] = Counter()
        self._trouble = ""
        self.answered_in = Latency()

    def start(self) -> None:
        """Raises DeviceError when the socket cannot be had, or another relay answers there."""
        self._socket.start()

    def stop(self) -> None:
        self._socket.stop()

    def health(self) -> Health:
        if not self._socket.is_open:
            return Health(State.STOPPED)
        if self._trouble:
            return Health(State.DEGRADED, self._trouble, self._socket.progress_ns)
        detail = self._server.origin if self._server else "voice.remote.url is empty"
        return Health(State.OK, detail, self._socket.progress_ns)

    def report(self) -> Mapping[str, Any]:
        waits = {"busy": self._socket.busy, "gone": self._socket.gone}
        return {**self._counts, **waits, "answered_in_ms": self.answered_in.summary()}

    # -- threads ------------------------------------------------------------------------------------------------------

    def _reply(self, client: socket.socket) -> bytes:
        return as_line(self._answer(Lines(client, HAND_OVER_S)))

    def _answer(self, lines: Lines) -> Mapping[str, Any]:
        try:
            request = lines.line()
            if request.get("do") == "health":
                return self._about()
            speech, within_s = _speech(request, lines)
            return self._recognise(speech, within_s)
        except (EdgeError, TimeoutError) as err:
            return {"error": str(err)}

    def _recognise(self, speech: Speech, within_s: float) -> Mapping[str, Any]:
        if self._server is None:
            raise DeviceError("no speech server: voice.remote.url is empty")
        if not self._cfg.may_leave:
            self._counts["refused"] += 1
            raise DeviceError("voice.remote.may_leave is false: sound stays in the box")
        self._counts["asked"] += 1
        began_ns = self._clock()
        try:
            said = self._server.recognise(speech, Deadline(within_s))
        except EdgeError as err:
            self._counts["unanswered" if isinstance(err, DeviceError) else "nonsense"] += 1
            self._note(str(err))
            raise
        self._note("")
        self._counts["answered"] += 1
        self.answered_in.add((self._clock() - began_ns) * 1000 / SECOND)
        return {"text": said.text, "confidence": said.confidence, "origin": self._server.origin}

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.log(logging.WARNING if trouble else logging.INFO, "speech.server %s", trouble or "answers again")
        self._trouble = trouble

    def _about(self) -> Mapping[str, Any]:
        health = self.health()
        return {"state": health.state, "detail": health.detail, "speech": dict(self.report())}


def _speech(request: Mapping[str, Any], lines: Lines) -> tuple[Speech, float]:
    """What a client wants recognised, and within how many seconds. Raises ProtocolError when it asks otherwise."""
    rate_hz, samples, within_ms = request.get("rate_hz"), request.get("samples"), request.get("within_ms")
    if request.get("do") != "recognise" or rate_hz not in RATES_HZ:
        raise ProtocolError(f"a request is do = recognise or health, with a rate_hz of {RATES_HZ}")
    if not isinstance(samples, int) or not 0 < samples <= MOST_SECONDS * rate_hz:
        raise ProtocolError(f"samples {str(samples)[:40]}: 1 to {MOST_SECONDS} s of them are taken")
    if not isinstance(within_ms, int | float) or not 0 < within_ms <= MOST_WITHIN_MS:
        raise ProtocolError(f"within_ms {str(within_ms)[:40]}: above 0, {MOST_WITHIN_MS} at most")
    return Speech(np.frombuffer(lines.block(2 * samples), "<i2"), rate_hz), within_ms / 1000.0
