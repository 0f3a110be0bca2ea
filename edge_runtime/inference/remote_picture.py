"""An inference server, asked about parts by the process that has no network: over a unix socket to `serve`.

Nothing here makes a part wait. Asking is a note in a queue; one thread prepares tensors and hands them over, another
makes the connection, listens, and makes it anew in the background. A server that fails is left alone (circuit.py) and
tried with a picture that no part waits for; with a dead server or without `serve` a part costs a look at a variable.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.errors import DeviceError, EdgeError, ModelError
from edge_runtime.core.messages import Prediction
from edge_runtime.core.remote_standing import RemoteStanding, Standing, age_s
from edge_runtime.core.typed_json import to_json
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.handoff import Bounded
from edge_runtime.flow.timing import Latency
from edge_runtime.inference.circuit import Circuit, Phase
from edge_runtime.inference.picture_wire import MOST_IN_FLIGHT, Failure
from edge_runtime.inference.remote_session import Question, Reading, RemoteSession, Tell

log = logging.getLogger(__name__)

LOOK_S = 0.1  # how long the threads are silent at most
END_S = 2.0

Changed = Callable[[bool, str], None]  # whether the server answers, and who it is or why it does not


class RemotePicture:
    """A component. `ask` is for the thread that has the model; the callbacks come from this component's threads."""

    name = "remote"

    def __init__(self, path: Path, share_ns: int, changed: Changed, clock: Clock) -> None:
        """path: where `serve` listens. share_ns: how long an answer to a trial may take."""
        self._path = path
        self._share_ns = share_ns
        self._changed = changed
        self._clock = clock
        self._reading: Reading | None = None
        self._session: RemoteSession | None = None  # while parts are asked
        self._circuit = Circuit()
        self._lock = threading.Lock()  # of the circuit
        self._counts: Counter[str] = Counter()
        self._queue: Bounded[tuple[RemoteSession, Question]] = Bounded(2 * MOST_IN_FLIGHT)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._trouble = ""
        self._origin = ""
        self._progress_ns = clock()
        self._answered_ns: int | None = None
        self._tried_ns: int | None = None
        self.answer_ms = Latency()

    def start(self) -> None:
        self._stop.clear()
        for name, turn in (("remote", self._connect), ("remote-sender", self._send)):
            thread = threading.Thread(target=self._run, args=(turn,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=END_S)
        self._threads.clear()

    def health(self) -> Health:
        if not self._threads:
            return Health(State.STOPPED)
        if self._session is not None:
            return Health(State.OK, f"{self._origin} {self._in_words()}", self._progress_ns)
        if self._trouble:
            return Health(State.DEGRADED, f"the box's own model judges alone: {self._in_words()}", self._progress_ns)
        return Health(State.STARTING, "the server is being asked", self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        """As core/status.RemoteReport has it, but for what the line counts."""
        counts = {name: self._counts[name] for name in ("asked", "answered", *Failure, "resting", "busy", "trials")}
        return {
            "server": self._origin,
            "phase": self._circuit.phase,
            "trouble": self._trouble,
            **counts,
            "answer_ms": self.answer_ms.summary(),
            "standing": to_json(self.standing()),
        }

    def standing(self) -> RemoteStanding:
        now = self._clock()
        with self._lock:
            phase, failures, rests_ns = self._circuit.phase, self._circuit.failures, self._circuit.rests_for_ns(now)
        if phase is not Phase.UP and failures:
            standing = Standing.RESTS
        elif failures:
            standing = Standing.FAILS
        else:
            standing = Standing.NOT_ASKED if self._answered_ns is None else Standing.ANSWERS
        return RemoteStanding(
            standing=standing,
            allowed_ms=self._share_ns / MS,
            last_answer_s=age_s(self._answered_ns, now),
            tried_s=age_s(self._tried_ns, now),
            p95_ms=round(self.answer_ms.percentile(0.95), 1) if self.answer_ms.count else None,
            failures=failures,
            next_try_s=round(rests_ns / SECOND, 1) if standing is Standing.RESTS else None,
            why=self._trouble,
        )

    def _in_words(self) -> str:
        return self.standing().words(datetime.now().astimezone())

    # -- for whoever has the model ------------------------------------------------------------------------------------

    def read_by(self, reading: Reading) -> None:
        """The bundle that trials are read with from now on."""
        self._reading = reading

    def ask(self, image: NDArray[np.uint8], reading: Reading, due_ns: int, tell: Tell) -> bool:
        """Have a picture judged elsewhere; False when nobody is asked. Else `tell` is called once, soon after due_ns.

        image: read-only; it is prepared on another thread.
        """
        session = self._session
        if session is None or session.reading is not reading:
            self._counts["resting"] += 1
            return False
        began_ns = self._clock()

        def told(prediction: Prediction | None) -> None:
            if prediction is not None:
                self.answer_ms.add((self._clock() - began_ns) / MS)
            tell(prediction)

        question = session.take(image, due_ns, told)
        if question is None:
            self._counts["busy"] += 1
            return False
        self._counts["asked"] += 1
        self._queue.offer((session, question))  # it has room for two connections; what it had not would end as late
        return True

    # -- threads ------------------------------------------------------------------------------------------------------

    def _run(self, turn: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                turn()
            except Exception:  # the thread's outermost loop: nothing but `stop` may end it
                log.exception("remote thread failed")
                self._stop.wait(LOOK_S)

    def _send(self) -> None:
        taken = self._queue.take(LOOK_S)
        if taken is not None:
            session, question = taken
            session.send(question)

    def _connect(self) -> None:
        """One trial when it is due, and if the server answers, listening until it no longer does."""
        self._progress_ns = now = self._clock()
        reading = self._reading
        if reading is None or not self._begin_trial(now):
            self._stop.wait(min(LOOK_S, max(0.001, self._circuit.rests_for_ns(now) / SECOND) if reading else LOOK_S))
            return
        self._counts["trials"] += 1
        try:
            session = RemoteSession(self._path, reading, self._ended, self._clock)
        except EdgeError as err:
            self._give_up(str(err))
            return
        why = "the connection ended"
        try:
            self._try(session)
            self._up(session)
            self._listen(session)
            why = self._trouble or why
        except (OSError, EdgeError) as err:
            why = str(err) or why
        finally:
            self._session = None
            session.close()
            self._give_up(why)

    def _begin_trial(self, now_ns: int) -> bool:
        with self._lock:
            return self._circuit.begin_trial(now_ns)

    def _try(self, session: RemoteSession) -> None:
        """Raises DeviceError when the server does not answer for pictures that no part waits for."""
        for picture in session.reading.trial_pictures():
            told: list[Prediction | None] = []
            due_ns = self._clock() + self._share_ns
            question = session.take(picture, due_ns, told.append, is_trial=True)
            if question is None:
                raise DeviceError("the connection ended")
            session.send(question)
            while not told and not self._stop.is_set():
                session.listen(min(LOOK_S, max(0.001, (due_ns - self._clock()) / SECOND)))
                session.expire()
            if not told or told[0] is None:
                raise DeviceError(self._trouble or "the trial failed")
            self._origin = told[0].origin
        with self._lock:
            self._circuit.answered()

    def _up(self, session: RemoteSession) -> None:
        self._trouble = ""
        self._session = session
        log.info("remote.up server=%s", self._origin)
        self._changed(True, self._origin)

    def _listen(self, session: RemoteSession) -> None:
        while not self._stop.is_set() and not session.is_over and self._circuit.phase is Phase.UP:
            if session.reading is not self._reading:
                raise ModelError("another model came to work in the box")
            self._progress_ns = self._clock()
            session.listen(LOOK_S)
            session.expire()

    def _ended(self, failure: Failure | None, why: str) -> None:
        """Of a question about a part, or of a trial, which is not counted. Any thread."""
        self._trouble = why
        with self._lock:
            if self._circuit.phase is Phase.TRIAL:
                self._tried_ns = self._tried_ns if failure else self._clock()
                return
            self._answered_ns = self._answered_ns if failure else self._clock()
            self._counts[failure or "answered"] += 1
            if failure is None:
                self._circuit.answered()
            else:
                self._circuit.missed(self._clock())

    def _give_up(self, why: str) -> None:
        """The server is left alone for a while."""
        was_up = self._circuit.phase is not Phase.TRIAL
        with self._lock:
            if self._circuit.phase is not Phase.RESTING:
                self._circuit.broke(self._clock())
        self._trouble = why
        if was_up and not self._stop.is_set():
            log.warning("remote.lost rests_s=%.1f why=%s", self._circuit.rests_for_ns(self._clock()) / SECOND, why)
            self._changed(False, why)
