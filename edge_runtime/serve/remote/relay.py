"""From the line to an inference server in the house: tensors in over a unix socket, the model's outputs out.

`run` has no network; this is the only way by which a picture of a part can leave the box to be judged, and it is shut
unless `model.remote.may_leave` says so: the line does not ask without it, and the relay looks again. Nothing is kept.
The server may be dead, slow or hostile: an answer is bounded in time and size and checked to the last value, and the
few threads that wait for it are all it can hold up.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import MS, SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError, EdgeError, ProtocolError
from edge_runtime.core.remote_standing import RemoteStanding, Standing, age_s
from edge_runtime.core.typed_json import to_json
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.timing import Latency
from edge_runtime.inference.picture_wire import (
    MOST_BYTES,
    MOST_IN_FLIGHT,
    Answer,
    Failure,
    ServedModel,
    as_shape,
    as_text,
    datatype_of,
    size_of,
)
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import UnixServer
from edge_runtime.serve.deadline import Deadline
from edge_runtime.serve.remote.v2_server import Refused, V2Server

log = logging.getLogger(__name__)

MOST_CLIENTS = 4  # one line, and those who ask how it is; more are lines that are gone and not yet noticed
HAND_OVER_S = 1.0  # to say what is wanted, to send a tensor that was announced, to take an answer
DESCRIBE_S = 3.0
IDLE_S = 0.5  # between looks at whether the relay is to end
MOST_WITHIN_MS = 60_000
QUIET_NS = 10 * SECOND


@dataclass(frozen=True, slots=True)
class Question:
    """One part's tensor, or that of a trial, and by when its answer is of use."""

    number: int
    datatype: str
    shape: tuple[int, ...]
    content: bytes
    until: Deadline
    is_trial: bool


class PictureRelay:
    """A component. `path` is the unix socket; only root, the own user and the own group can open it."""

    name = "pictures"

    def __init__(self, cfg: EdgeConfig, path: Path, clock: Clock = monotonic_ns) -> None:
        self.path = path
        self._remote = cfg.model.remote
        self._allowed_ms = self._remote.share * cfg.decision.deadline_ms
        self._is_wanted = cfg.model.predictor == "remote"
        self._model = self._remote.model or cfg.model.name.partition("@")[0]
        self.server = urlsplit(self._remote.url).netloc
        self._whom = f"{self._model} at {self.server}"
        self._clock = clock
        self._socket = UnixServer(
            path, "pictures", self._reply, most_clients=MOST_CLIENTS, send_s=HAND_OVER_S, clock=clock
        )
        self._counts: Counter[str] = Counter()
        self._trouble = ""
        self._failures = 0  # in a row
        self._answered_ns: int | None = None
        self._tried_ns: int | None = None
        self._quiet_until_ns = 0
        self._lines: set[Session] = set()
        self.answered_in = Latency()

    def start(self) -> None:
        """Raises DeviceError when the socket cannot be had, or another relay answers there; ConfigError when the
        files of `model.remote` cannot be used."""
        if self._is_wanted:
            self.open_server().close()
        self._socket.start()

    def stop(self) -> None:
        self._socket.stop()
        for line in list(self._lines):
            line.end()

    def health(self) -> Health:
        if not self._socket.is_open:
            return Health(State.STOPPED)
        if shut := self.shut():
            return Health(State.OK, shut, self._socket.progress_ns)
        standing = self.standing()
        state = (
            State.DEGRADED if standing.standing is Standing.FAILS else State.OK
        )  # not asked yet: it waits for a line
        words = standing.words(datetime.now().astimezone())
        return Health(state, f"{self._whom} {words}", self._socket.progress_ns)

    def standing(self) -> RemoteStanding:
        """As seen from here; whether it rests is the line's to say."""
        now = self._clock()
        known = Standing.NOT_ASKED if self._answered_ns is None else Standing.ANSWERS
        return RemoteStanding(
            standing=Standing.FAILS if self._failures else known,
            allowed_ms=self._allowed_ms,
            last_answer_s=age_s(self._answered_ns, now),
            tried_s=age_s(self._tried_ns, now),
            p95_ms=round(self.answered_in.percentile(0.95), 1) if self.answered_in.count else None,
            failures=self._failures,
            why=self._trouble,
        )

    def report(self) -> Mapping[str, Any]:
        waits = {"busy": self._socket.busy, "gone": self._socket.gone, "lines": len(self._lines)}
        return {**self._counts, **waits, "answered_in_ms": self.answered_in.summary()}

    # -- for its sessions ---------------------------------------------------------------------------------------------

    def shut(self) -> str:
        """Why no picture goes anywhere; empty: one may."""
        if not self._is_wanted:
            return "model.predictor is 'local'"
        return "" if self._remote.may_leave else "model.remote.may_leave is false: pictures stay in the box"

    def open_server(self) -> V2Server:
        return V2Server(self._remote, self._model)

    def count(self, what: str) -> None:
        self._counts[what] += 1

    def failed(self, why: str) -> None:
        self._failures += 1
        self._note(why)

    def answered(self, is_trial: bool, took_ms: float) -> None:
        self._failures = 0
        self._note("")
        if is_trial:
            self._tried_ns = self._clock()
            return
        self._answered_ns = self._clock()
        self.answered_in.add(took_ms)
        self.count("answered")

    def _note(self, trouble: str) -> None:
        """The newest word about the server; a server that comes and goes part by part does not fill the log."""
        if trouble != self._trouble and self._clock() >= self._quiet_until_ns:
            self._quiet_until_ns = self._clock() + QUIET_NS
            log.log(logging.WARNING if trouble else logging.INFO, "pictures.server %s", trouble or "answers again")
        self._trouble = trouble

    # -- threads of the socket ----------------------------------------------------------------------------------------

    def _reply(self, client: socket.socket) -> bytes:
        lines = Lines(client, HAND_OVER_S, most_block=MOST_BYTES)
        try:
            wanted = lines.line().get("do")
            if wanted == "health":
                return as_line(self._about())
            if wanted != "open":
                raise ProtocolError("a request is do = open or health")
            if shut := self.shut():
                raise DeviceError(shut)
        except (EdgeError, TimeoutError) as err:
            return as_line({"error": str(err)})
        with Session(self, client, lines) as session:
            self._lines.add(session)
            try:
                return session.serve()
            finally:
                self._lines.discard(session)

    def _about(self) -> Mapping[str, Any]:
        """A server that was never asked is not called well."""
        health = self.health()
        told: dict[str, Any] = {"detail": health.detail, "pictures": dict(self.report())}
        if self.shut():
            return {"state": health.state, **told}
        standing = self.standing()
        is_proven = standing.standing is not Standing.NOT_ASKED or standing.tried_s is not None
        state = health.state if is_proven else State.STARTING
        return {"state": state, "server": self._whom, "standing": to_json(standing), **told}


class Session:
    """One line, from the moment it opened its connection until it closes it."""

    def __init__(self, relay: PictureRelay, client: socket.socket, lines: Lines) -> None:
        self._relay = relay
        self._lines = lines
        self._out = client.dup()  # the reading side sets timeouts of its own
        self._sending = threading.Lock()
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(MOST_IN_FLIGHT)
        self._workers: list[threading.Thread] = []
        self._is_over = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for _worker in self._workers:
            self._questions.put(None)
        self._out.close()

    def end(self) -> None:
        """From any thread: the line is hung up on."""
        self._is_over = True
        with contextlib.suppress(OSError):
            self._out.shutdown(socket.SHUT_RDWR)

    def serve(self) -> bytes:
        """Until the line hangs up, or says what cannot be understood; then the last word to it."""
        try:
            served = self._describe()
            self._send(as_line({"served": served.as_dict(), "server": self._relay.server}))
            while not self._is_over:
                if (question := self._next()) is not None:
                    self._take(served, question)
        except (OSError, EdgeError) as err:
            return b"" if isinstance(err, OSError) else as_line({"error": str(err)})
        return b""

    def _describe(self) -> ServedModel:
        """Raises EdgeError when the server does not say."""
        server = self._relay.open_server()
        try:
            return server.describe(Deadline(DESCRIBE_S))
        except TimeoutError as err:
            self._relay.failed(f"the server {server.netloc} does not answer in time")
            raise DeviceError(f"the server {server.netloc} does not answer in time") from err
        except EdgeError as err:
            self._relay.failed(str(err))
            raise
        finally:
            server.close()

    def _next(self) -> Question | None:
        """None when nobody asked for a while. Raises ProtocolError, OSError."""
        try:
            request = self._lines.within(IDLE_S).line()
        except TimeoutError:
            return None
        return _question(request, self._lines.within(HAND_OVER_S))

    def _take(self, served: ServedModel, question: Question) -> None:
        if not self._free.acquire(blocking=False):
            self._fail(question, Failure.REFUSED, f"{MOST_IN_FLIGHT} parts are asked already")
            return
        if self._questions.empty() and len(self._workers) < MOST_IN_FLIGHT:
            worker = threading.Thread(target=self._work, args=(served,), name="pictures-asker", daemon=True)
            self._workers.append(worker)
            worker.start()
        self._questions.put(question)

    # -- its workers, one connection to the server each ----------------------------------------------------------------

    def _work(self, served: ServedModel) -> None:
        server = self._relay.open_server()
        try:
            while (question := self._questions.get()) is not None:
                try:
                    self._ask(server, served, question)
                finally:
                    self._free.release()
        except OSError:
            self.end()  # the line is gone, or does not read
        finally:
            server.close()

    def _ask(self, server: V2Server, served: ServedModel, question: Question) -> None:
        self._relay.count("trials" if question.is_trial else "asked")
        began_ns = monotonic_ns()
        try:
            answer = server.infer(
                served, question.datatype, question.shape, question.content, f"part-{question.number}", question.until
            )
        except TimeoutError:
            self._fail(question, Failure.LATE, f"the server {server.netloc} does not answer in time")
        except Refused as err:
            self._fail(question, Failure.REFUSED, str(err))
        except ProtocolError as err:
            self._fail(question, Failure.WRONG, str(err))
        except EdgeError as err:
            self._fail(question, Failure.UNREACHABLE, str(err))
        except Exception as err:  # a stranger's bytes must not end the worker
            log.exception("pictures.asker failed")
            self._fail(question, Failure.WRONG, f"{type(err).__name__} while its answer was read")
        else:
            self._relay.answered(question.is_trial, (monotonic_ns() - began_ns) / MS)
            self._send(_told(question, served, answer))

    def _fail(self, question: Question, failure: Failure, why: str) -> None:
        self._relay.failed(why)
        if not question.is_trial:
            self._relay.count(failure)
        self._send(as_line({"id": question.number, "failed": failure, "why": as_text(why)}))

    def _send(self, content: bytes) -> None:
        with self._sending:
            self._out.settimeout(HAND_OVER_S)
            self._out.sendall(content)


def _question(request: Mapping[str, Any], lines: Lines) -> Question:
    """Raises ProtocolError when the line asks what it may not, OSError when it is gone."""
    number, within_ms, size = request.get("id"), request.get("within_ms"), request.get("bytes")
    if not isinstance(number, int) or not isinstance(within_ms, int | float) or not 0 < within_ms <= MOST_WITHIN_MS:
        raise ProtocolError(f"a question has an id and within_ms, {MOST_WITHIN_MS} at most")
    datatype, shape = str(request.get("datatype")), as_shape(request.get("shape"), "the tensor")
    if size != size_of(datatype, shape):
        raise ProtocolError(f"{str(size)[:20]} bytes for a tensor {datatype} {'x'.join(map(str, shape))}")
    until = Deadline(within_ms / 1000.0)
    return Question(number, datatype, shape, lines.block(size), until, request.get("trial") is True)


def _told(question: Question, served: ServedModel, answer: Answer) -> bytes:
    contents = [array.tobytes() for array in answer.outputs]
    outputs = [
        {"name": form.name, "datatype": datatype_of(array.dtype), "shape": list(array.shape), "bytes": len(content)}
        for form, array, content in zip(served.outputs, answer.outputs, contents, strict=True)
    ]
    return as_line({"id": question.number, "version": answer.version, "outputs": outputs}) + b"".join(contents)
