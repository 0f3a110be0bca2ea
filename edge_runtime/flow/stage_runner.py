"""One worker thread that takes parts from a queue through a stage, and is replaced when it hangs.

Native code can hang: nothing in Python can stop such a call, so it is abandoned together with its thread and whatever
it held (the interpreter), and a fresh worker with a fresh stage takes over. The item it was working on is handed to
`on_fault`, which decides it. A late answer of an abandoned worker is thrown away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import EdgeError
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.handoff import Bounded
from edge_runtime.flow.priority import run_plainly, run_promptly

log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")

IDLE_WAIT_S = 0.2  # how long an idle worker waits for a part before it shows that it is alive
MOST_ABANDONED = 5  # hung threads a process may carry; past it the supervisor should restart the process
FAULTS_IN_A_ROW = 3  # a stage that raises so often gets a fresh successor: its state may be what is broken
REBUILD_WAIT_S = 1.0  # between attempts to build a stage again
START_TIMEOUT_S = 30.0


class Hung(EdgeError):
    """A stage worked on one item longer than its budget."""


class NotReady(EdgeError):
    """A stage was not built in time; its thread may hang in it."""


class _Worker(Generic[In, Out]):
    """One thread's share of the state. A new one is made for each thread, so an abandoned thread owns nothing."""

    def __init__(self) -> None:
        self.item: In | None = None
        self.since_ns = 0
        self.progress_ns = 0
        self.abandoned = False
        self.retired = False  # a successor has taken over between two items
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self.thread: threading.Thread | None = None


class StageRunner(Generic[In, Out]):
    """`queue -> stage -> sink` on a thread of its own, with a time budget for each item.

    make_stage: builds the stage on the worker's thread; called again for each replacement.
    sink(item, result): called on the worker's thread.
    on_fault(item, error): the stage raised, or hung (error is Hung); called once for the item, by the worker or by
    whoever calls `supervise`.
    """

    def __init__(
        self,
        name: str,
        queue: Bounded[In],
        make_stage: Callable[[], Callable[[In], Out]],
        sink: Callable[[In, Out], None],
        on_fault: Callable[[In, Exception], None],
        budget_ns: int,
        clock: Clock,
    ) -> None:
        self.name = name
        self._queue = queue
        self._make_stage = make_stage
        self._sink = sink
        self._on_fault = on_fault
        self._budget_ns = budget_ns
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._worker: _Worker[In, Out] | None = None
        self._retiring: list[_Worker[In, Out]] = []  # replaced by `swap`, with an item in work
        self._hung: list[threading.Thread] = []
        self.done = 0
        self.faults = 0
        self.replaced = 0
        self.scheduling = ""

    def start(self) -> None:
        self._stop.clear()
        worker = self._spawn()
        if not worker.ready.wait(START_TIMEOUT_S):
            raise NotReady(f"{self.name}: not ready after {START_TIMEOUT_S:.0f} s")
        if worker.failure:
            raise worker.failure

    def swap(self, make_stage: Callable[[], Callable[[In], Out]], commit: Callable[[], None] = lambda: None) -> None:
        """Put another stage to work between two items. It is built beside the old one, which works on until then.

        commit: called when the new stage is ready, just before it takes over; the last that may refuse.
        Raises what `make_stage` or `commit` raises, and nothing has changed; EdgeError after START_TIMEOUT_S.
        """
        successor: _Worker[In, Out] = _Worker()
        successor.progress_ns = self._clock()
        built: list[Callable[[In], Out]] = []
        go = threading.Event()

        def run() -> None:
            try:
                built.append(make_stage())
            except Exception as err:
                successor.failure = err
            successor.ready.set()
            go.wait()
            if built and not successor.retired:
                self._work(successor, built[0])

        successor.thread = threading.Thread(target=run, name=self.name, daemon=True)
        successor.thread.start()
        try:
            if not successor.ready.wait(START_TIMEOUT_S):
                raise EdgeError(
                    f"{self.name}: the new stage is not ready after {START_TIMEOUT_S:.0f} s; the old one stays"
                )
            if successor.failure:
                raise successor.failure
            commit()
        except BaseException:
            successor.retired = True
            go.set()
            raise
        with self._lock:
            old, self._worker, self._make_stage = self._worker, successor, make_stage
            successor.progress_ns = self._clock()
            if old is not None:
                old.retired = True
                self._retiring.append(old)
        go.set()

    def stop(self) -> None:
        """Finish the item in work, then end. A hung worker is left behind."""
        self._stop.set()
        worker = self._worker
        if worker and worker.thread and worker.thread is not threading.current_thread():
            worker.thread.join(timeout=self._budget_ns / 1e9 + IDLE_WAIT_S + 1.0)

    @property
    def is_idle(self) -> bool:
        worker = self._worker
        return len(self._queue) == 0 and all(one.item is None for one in (worker, *self._retiring) if one)

    def health(self) -> Health:
        worker = self._worker
        if worker is None or self._stop.is_set():
            return Health(State.STOPPED)
        hung = sum(thread.is_alive() for thread in self._hung)
        if worker.failure:
            return Health(State.FAILED, str(worker.failure), worker.progress_ns)
        if hung > MOST_ABANDONED:
            return Health(State.FAILED, f"{hung} hung calls left behind", worker.progress_ns)
        if not worker.ready.is_set():
            return Health(State.STARTING, "stage is being built", worker.progress_ns)
        return Health(State.OK, f"{hung} hung calls left behind" if hung else "", worker.progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {"done": self.done, "faults": self.faults, "replaced": self.replaced, "waiting": len(self._queue)}

    @property
    def due_ns(self) -> int | None:
        """When the item in work will be over budget; None while there is none."""
        worker = self._worker
        return None if worker is None or worker.item is None else worker.since_ns + self._budget_ns

    def supervise(self, now_ns: int) -> None:
        """Replace the worker when its item is over budget. To be called from `due_ns` on."""
        if self._is_dead():
            log.error("worker died runner=%s: replaced", self.name)
            self._replace()
            return
        with self._lock:
            self._retiring = [
                one for one in self._retiring if not one.abandoned and one.thread and one.thread.is_alive()
            ]
            at_work = (self._worker, *self._retiring)
        for one in at_work:
            if one is not None and self._abandon_if_hung(one, now_ns) and one is self._worker:
                self._replace()

    def _abandon_if_hung(self, worker: _Worker[In, Out], now_ns: int) -> bool:
        with self._lock:
            if worker.abandoned or worker.item is None or now_ns - worker.since_ns <= self._budget_ns:
                return False
            item, worker.abandoned = worker.item, True
        if worker.thread:
            self._hung.append(worker.thread)
            run_plainly(worker.thread.native_id or 0)  # it may spin for ever
        late_ms = (now_ns - worker.since_ns) / 1e6
        log.error("stage.hung runner=%s after_ms=%.0f: replaced", self.name, late_ms)
        self._count_fault(item, Hung(f"no answer for {late_ms:.0f} ms"))
        worker.item = None
        return True

    def _is_dead(self) -> bool:
        """A worker ends by `stop` or by handing over to its successor, never otherwise."""
        worker = self._worker
        if worker is None or worker.thread is None or worker.failure or self._stop.is_set():
            return False
        return worker.ready.is_set() and not worker.thread.is_alive()

    def _replace(self) -> None:
        self.replaced += 1
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        if not self._stop.is_set():
            self._spawn()

    def _spawn(self) -> _Worker[In, Out]:
        worker: _Worker[In, Out] = _Worker()
        worker.progress_ns = self._clock()
        worker.thread = threading.Thread(target=self._run, args=(worker,), name=self.name, daemon=True)
        self._worker = worker
        worker.thread.start()
        return worker

    def _run(self, worker: _Worker[In, Out]) -> None:
        stage = self._build(worker)
        if stage:
            self._work(worker, stage)

    def _work(self, worker: _Worker[In, Out], stage: Callable[[In], Out]) -> None:
        self.scheduling = run_promptly(self._budget_ns)
        faults_in_a_row = 0
        while not worker.retired and not self._stop.is_set():
            worker.progress_ns = self._clock()
            item = self._queue.take(IDLE_WAIT_S)
            if item is None:
                continue
            worker.since_ns = self._clock()
            worker.item = item
            error: Exception | None = None
            try:
                result = stage(item)
            except Exception as err:  # whatever a model or a library throws becomes this part's engine fault
                error = err
            with self._lock:
                if worker.abandoned:
                    return
                worker.item = None
            if error is None:
                try:
                    self._sink(item, result)
                except Exception as err:  # so does what the sink throws: the worker must not die of it
                    log.exception("sink failed runner=%s", self.name)
                    error = err
            if error is None:
                faults_in_a_row = 0
                self.done += 1
                continue
            faults_in_a_row += 1
            log.error("stage.fault runner=%s error=%s", self.name, error)
            self._count_fault(item, error)
            if faults_in_a_row >= FAULTS_IN_A_ROW and not worker.retired:
                self._replace()
                return

    def _build(self, worker: _Worker[In, Out]) -> Callable[[In], Out] | None:
        while not self._stop.is_set():
            try:
                stage = self._make_stage()
            except Exception as err:
                log.error("stage.build runner=%s error=%s", self.name, err)
                first = worker.failure is None and self.replaced == 0
                worker.failure = err
                worker.ready.set()
                if first:
                    return None  # start() raises it: a station that never worked is not retried behind its back
                worker.progress_ns = self._clock()
                self._stop.wait(REBUILD_WAIT_S)
            else:
                worker.failure = None
                worker.ready.set()
                return stage
        return None

    def _count_fault(self, item: In, error: Exception) -> None:
        self.faults += 1
        try:
            self._on_fault(item, error)
        except Exception:  # called by the worker and by its supervisor: neither may die of a listener
            log.exception("fault handler failed runner=%s", self.name)
