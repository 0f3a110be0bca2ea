"""The seat of a model: parts with their pictures go in, what its own thresholds make of them comes out.

One worker thread asks the model and is replaced when it hangs. The model, its thresholds and the gate of its pictures
sit and go together: none is ever used with another's.

An inspector knows no ledger and no gate. It tells its owner what it found, and what comes of that is the owner's
affair: the line decides with it, and a second one beside it, asked of the same pictures, moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.clock import MS, Clock
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import Cause, Frame, Prediction, Trigger, Verdict
from edge_runtime.decision.policy import Policy
from edge_runtime.flow.components import Health
from edge_runtime.flow.handoff import Bounded
from edge_runtime.flow.stage_runner import StageRunner
from edge_runtime.flow.timing import Latency
from edge_runtime.inference.remote_session import Reading
from edge_runtime.lines.picture_watch import Gate

Model = Callable[[Any], Prediction]  # picture (h, w, 3) u8 RGB -> prediction
Look = Callable[[NDArray[np.uint8], Gate | None], str]  # what is wrong with a picture, or empty; see PictureWatch.look

ESTIMATE_GAIN = 0.2  # weight of the newest part in the running mean of model time


@dataclass(frozen=True, slots=True)
class LineModel:
    """A model with what belongs to it.

    open: loads and warms it up; called on the worker's thread, and again for each replacement.
    gate: what is wrong with a picture, asked before the model; None asks nothing (benches, rigs).
    elsewhere: how it reads what its model on a server says; None: no server is asked. Usable once `open` has returned.
    """

    label: str  # "scratch@1"
    open: Callable[[], Model]
    policy: Policy
    gate: Gate | None = None
    elsewhere: Reading | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One part on its way to the model."""

    trigger: Trigger
    frame: Frame


@dataclass(frozen=True, slots=True)
class Judged:
    """What is held of one part, and why. prediction: None where no model was asked, or none answered."""

    prediction: Prediction | None
    verdict: Verdict
    cause: Cause
    reason: str


class Inspector:
    """See the module. The callbacks are called on the worker's thread, but for `on_overload` of a full queue.

    begins: whether the part still wants an answer, asked just before it is worked on.
    on_begun: told of each part just before the model is asked about it.
    on_judged, on_overload, on_fault: what came of a part; one of them for each that began, but for a hung call
    `on_fault` comes from whoever calls `supervise`.
    """

    name = "model"

    def __init__(
        self,
        model: LineModel,
        cfg: DecisionConfig,
        *,
        look: Look,
        begins: Callable[[Job], bool],
        on_judged: Callable[[Job, Judged], None],
        on_overload: Callable[[Job, str], None],
        on_fault: Callable[[Job, Exception], None],
        clock: Clock,
        on_begun: Callable[[Job, LineModel], None] | None = None,
    ) -> None:
        self.label = model.label
        self.invoke = Latency()
        self._look = look
        self._begins = begins
        self._on_begun = on_begun
        self._on_judged = on_judged
        self._on_overload = on_overload
        self._clock = clock
        self._deadline_ns = round(cfg.deadline_ms * MS)
        self._budget_ns = round(cfg.stage_budget_ms * MS)
        self._model_ns = 0.0  # running mean of the time one part takes in the model
        self._queue: Bounded[Job] = Bounded(cfg.queue_parts)
        self._runner: StageRunner[Job, Judged | None] = StageRunner(
            self.name, self._queue, lambda: self._stage(model), self._hand_on, on_fault, self._budget_ns, clock
        )

    # -- component ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when the model is loaded and warm. Raises what `open` raises, NotReady when it takes too long."""
        self._runner.start()

    def stop(self) -> None:
        self._runner.stop()

    def health(self) -> Health:
        return self._runner.health()

    def report(self) -> Mapping[str, Any]:
        return self._runner.report()

    # -- for its owner -----------------------------------------------------------------------------------------------

    def offer(self, job: Job) -> None:
        """Put a part in, or tell at once that there is no room for it."""
        if not self._queue.offer(job):
            self._on_overload(job, f"{self._queue.capacity} parts are waiting already")

    def swap(self, model: LineModel, commit: Callable[[], None] = lambda: None) -> None:
        """Load another model beside the running one, then switch between two parts. Raises EdgeError: nothing changed.

        commit: called once the new one is ready, just before it takes over; what it raises keeps the old one.
        Takes as long as loading and warming up; call it from a thread that may wait.
        """
        self._runner.swap(lambda: self._stage(model), commit)
        self.label = model.label
        self._model_ns = 0.0

    def supervise(self, now_ns: int) -> None:
        """Replace the worker when its part is over budget. To be called from `due_ns` on."""
        self._runner.supervise(now_ns)

    @property
    def due_ns(self) -> int | None:
        """When the part in work will be over budget; None while there is none."""
        return self._runner.due_ns

    @property
    def is_idle(self) -> bool:
        return self._runner.is_idle

    @property
    def scheduling(self) -> str:
        """How the worker's thread is scheduled: "fifo", or why it has to wait its turn."""
        return self._runner.scheduling

    def __len__(self) -> int:
        """Parts that wait for the model."""
        return len(self._queue)

    # -- worker thread -----------------------------------------------------------------------------------------------

    def _stage(self, model: LineModel) -> Callable[[Job], Judged | None]:
        ask = model.open()

        def inspect(job: Job) -> Judged | None:
            now = self._clock()
            if now + self._model_ns > job.trigger.at_ns + self._deadline_ns:
                self._on_overload(job, "no time left for the model")  # late work would make the next part late too
                self._model_ns *= 1.0 - ESTIMATE_GAIN  # nothing was measured: doubt it, or one stall refuses for ever
                return None
            if not self._begins(job):
                return None
            fault = self._look(job.frame.image, model.gate)
            if fault:
                return Judged(None, Verdict.UNSURE, Cause.INVALID_IMAGE, f"{Cause.INVALID_IMAGE}: {fault}")
            if self._on_begun:
                self._on_begun(job, model)
            prediction = ask(job.frame.image)
            if not 0.0 <= prediction.score <= 1.0:
                raise ModelError(f"score {prediction.score} is not between 0 and 1")
            took_ns = min(self._clock() - now, self._budget_ns)  # more is a stall or a hung call, not the model's pace
            self._model_ns += ESTIMATE_GAIN * (took_ns - self._model_ns)
            verdict, reason = model.policy.judge(prediction)
            return Judged(prediction, verdict, Cause.MODEL, reason)

        return inspect

    def _hand_on(self, job: Job, judged: Judged | None) -> None:
        if judged is None:
            return
        if judged.prediction is not None:
            self.invoke.add(judged.prediction.timings_ms.get("invoke", 0.0))
        self._on_judged(job, judged)
