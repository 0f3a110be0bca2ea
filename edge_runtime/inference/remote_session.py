"""One connection to `serve`: an inference server is asked about several parts at a time, answers come in any order.

Each question that was taken ends exactly once: with a prediction, or with a failure and none. Whoever takes it out of
`_open` ends it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.clock import MS, Clock
from edge_runtime.core.errors import DeviceError, EdgeError, ProtocolError
from edge_runtime.core.messages import Prediction
from edge_runtime.inference.picture_wire import (
    MOST_BYTES,
    MOST_IN_FLIGHT,
    Failure,
    ServedModel,
    as_array,
    as_name,
    as_served,
    as_shape,
    as_text,
    datatype_of,
)
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import connected

log = logging.getLogger(__name__)

CONNECT_S = 1.0
DESCRIBED_S = 5.0  # `serve` asks the server for 3 s
HAND_OVER_S = 1.0  # for `serve` to take a tensor, or to send the rest of an answer that began; it takes 1 ms

Tell = Callable[[Prediction | None], None]  # None: there is no answer that could be used
Ended = Callable[["Failure | None", str], None]  # None: it was answered; else what failed, and why in words


class Fitted(Protocol):
    """One bundle and a model elsewhere that fit together."""

    def prepare(self, image: NDArray[np.uint8]) -> tuple[NDArray[Any], Any]:
        """The tensor for the server, valid until the next call, and where it lies on the picture. Raises ModelError."""

    def prediction(self, outputs: tuple[NDArray[Any], ...], place: Any, origin: str, took_ms: float) -> Prediction:
        """Raises ModelError when the outputs are no sensible answer."""


class Reading(Protocol):
    """How one bundle reads what a model elsewhere says."""

    def fit(self, served: ServedModel) -> Fitted:
        """Raises ModelError when that model is of another kind."""

    def trial_pictures(self) -> Sequence[NDArray[np.uint8]]:
        """What a server is tried with, one after the other, before it is asked about parts."""


@dataclass(slots=True)
class Question:
    """One picture on its way to the server and back."""

    number: int
    image: NDArray[np.uint8]
    asked_ns: int
    due_ns: int
    tell: Tell
    is_trial: bool = False  # no part waits for it
    place: Any = None  # where the tensor lies on the picture


class RemoteSession:
    """`take`, `send`, `listen` and `expire` may be called from threads of their own."""

    def __init__(self, path: Path, reading: Reading, ended: Ended, clock: Clock) -> None:
        """Connects, and has the served model described. Raises EdgeError when it cannot be had, or is another.

        ended: told of each question's end, and of why, before whoever asked it is.
        """
        self._ended = ended
        self._clock = clock
        self._open: dict[int, Question] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.reading = reading
        self.is_over = False
        try:
            self._sock = connected(path, CONNECT_S)
        except OSError as err:
            raise DeviceError(
                f"edge-runtime serve does not answer on {path} ({err.strerror or err})", "start edge-runtime serve"
            ) from err
        self._out = self._sock.dup()  # the reading side sets timeouts of its own
        try:
            self._sock.settimeout(HAND_OVER_S)
            self._sock.sendall(as_line({"do": "open"}))
            self._lines = Lines(self._sock, DESCRIBED_S, most_block=MOST_BYTES)
            told = self._lines.line()
            if "error" in told:
                raise DeviceError(as_text(told["error"]))
            self.served = as_served(_object(told.get("served")))
            self._fitted = reading.fit(self.served)
            self._server = as_name(told.get("server"), "the server's name")
        except OSError as err:
            self.close()
            raise DeviceError("edge-runtime serve does not say in time what the server has") from err
        except BaseException:
            self.close()
            raise

    def origin(self, version: str = "") -> str:
        """Who says so: `remote:scratch/3@gpu.example:8000`."""
        if not version and len(self.served.versions) == 1:
            version = self.served.versions[0]
        return f"remote:{self.served.name}{'/' if version else ''}{version}@{self._server}"

    def close(self) -> None:
        """Hang up. What is still open fails."""
        with self._lock:
            self.is_over = True
            left = list(self._open)
        with contextlib.suppress(OSError):
            self._out.shutdown(socket.SHUT_RDWR)
        self._out.close()
        self._sock.close()
        for number in left:
            self._fail(number, Failure.UNREACHABLE, "the connection ended")

    # -- questions ----------------------------------------------------------------------------------------------------

    def take(self, image: NDArray[np.uint8], due_ns: int, tell: Tell, is_trial: bool = False) -> Question | None:
        """Note a question; None where as many are open as the server is asked at once, or nobody is there."""
        with self._lock:
            if self.is_over or len(self._open) >= MOST_IN_FLIGHT:
                return None
            number = next(self._numbers)
            question = self._open[number] = Question(number, image, self._clock(), due_ns, tell, is_trial)
            return question

    def send(self, question: Question) -> None:
        """Prepare the picture and hand its tensor to `serve`. Never raises: the question fails."""
        try:
            left_ms = (question.due_ns - self._clock()) / MS
            if left_ms <= 0:
                self._fail(question.number, Failure.LATE, "no time was left to ask")
                return
            tensor, question.place = self._fitted.prepare(question.image)
            header = {
                "id": question.number,
                "within_ms": round(left_ms, 3),
                "datatype": datatype_of(tensor.dtype),
                "shape": list(tensor.shape),
                "bytes": tensor.nbytes,
                "trial": question.is_trial,
            }
            self._out.settimeout(HAND_OVER_S)
            self._out.sendall(as_line(header))
            self._out.sendall(np.ascontiguousarray(tensor).data)
        except OSError as err:
            self.is_over = True  # some of it may be on the way: nothing can follow on this connection
            with contextlib.suppress(OSError):
                self._out.shutdown(socket.SHUT_RDWR)
            why = f"edge-runtime serve does not take it ({err.strerror or err})"
            self._fail(question.number, Failure.UNREACHABLE, why)
        except EdgeError as err:
            self._fail(question.number, Failure.WRONG, str(err))

    def listen(self, seconds: float) -> None:
        """Take one answer, if there is one. Raises EdgeError or OSError when the connection is of no more use."""
        try:
            said = self._lines.within(seconds).line()
        except TimeoutError:
            return
        number = said.get("id")
        if not isinstance(number, int):
            raise ProtocolError(f"edge-runtime serve says {as_text(said.get('error', said))}")
        if "failed" in said:
            self._fail(number, _failure(said["failed"]), as_text(said.get("why")))
            return
        outputs = tuple(self._outputs(said))
        self._answered(number, outputs, str(said.get("version", "")))

    def expire(self) -> None:
        """Questions whose time is over are late, whatever comes back later."""
        now = self._clock()
        with self._lock:
            late = [number for number, question in self._open.items() if question.due_ns <= now]
        for number in late:
            self._fail(number, Failure.LATE, "the server does not answer in time")

    def _outputs(self, said: Mapping[str, Any]) -> Iterator[NDArray[Any]]:
        """Every output off the connection, in the order of the model's description."""
        told = said.get("outputs")
        if not isinstance(told, list) or len(told) != len(self.served.outputs):
            raise ProtocolError("edge-runtime serve sends other outputs than the server's model has")
        for form, tensor in zip(self.served.outputs, map(_object, told), strict=True):
            size = tensor.get("bytes")
            shape = as_shape(tensor.get("shape"), form.name)
            if tensor.get("name") != form.name or tensor.get("datatype") != form.datatype or not isinstance(size, int):
                raise ProtocolError(f"edge-runtime serve sends other outputs than {form}")
            content = self._lines.within(HAND_OVER_S).block(size)
            yield as_array(content, form.datatype, shape)

    def _answered(self, number: int, outputs: tuple[NDArray[Any], ...], version: str) -> None:
        question = self._end(number)
        if question is None:
            return  # it was late, and is counted
        now = self._clock()
        if now >= question.due_ns:
            self._tell(question, None, Failure.LATE, "the server does not answer in time")
            return
        took_ms = (now - question.asked_ns) / MS
        try:
            prediction = self._fitted.prediction(outputs, question.place, self.origin(version), took_ms)
        except EdgeError as err:
            self._tell(question, None, Failure.WRONG, str(err))
        else:
            self._tell(question, prediction, None, "")

    def _fail(self, number: int, failure: Failure, why: str) -> None:
        question = self._end(number)
        if question is not None:
            self._tell(question, None, failure, why)

    def _end(self, number: int) -> Question | None:
        with self._lock:
            return self._open.pop(number, None)

    def _tell(self, question: Question, prediction: Prediction | None, failure: Failure | None, why: str) -> None:
        self._ended(failure, why)
        try:
            question.tell(prediction)
        except Exception:  # whoever asked must not end the thread that listens for all
            log.exception("remote.listener failed")


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ProtocolError("edge-runtime serve sends what is no object")
    return value


def _failure(value: Any) -> Failure:
    try:
        return Failure(value)
    except ValueError as err:
        raise ProtocolError(f"edge-runtime serve tells of a failure {as_text(value)[:20]!r}") from err
