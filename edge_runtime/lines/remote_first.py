"""A model elsewhere beside the box's own: its answer counts where it is back in its share of the deadline.

    ask ------> elsewhere ----- answer in its share -----------------------> decided by it
    own model -----------> judged -- nobody was asked, or its time is over -> decided by that
                              '----- held until then -----------------------> decided by that

The own model judges each part, always and at once, as if there were nobody else: nothing that happens elsewhere can
make a part late, only earlier or, within the share, later than the own model alone. Starting it only when the other is
overdue would spare the box its work, and would bet each part on the own model being as quick as it was the last time.

Both are held to the bundle's limits. Which of the two decides is settled once for each part.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.clock import MS, Clock
from edge_runtime.core.messages import Cause, PartKey, Prediction, Verdict
from edge_runtime.flow.components import Component
from edge_runtime.inference.remote_session import Reading, Tell
from edge_runtime.lines.inspector import Job, Judged, LineModel

Settle = Callable[[Job, Judged], object]


class Elsewhere(Component, Protocol):
    """Who is asked; inference/remote_picture.RemotePicture."""

    def ask(self, image: NDArray[np.uint8], reading: Reading, due_ns: int, tell: Tell) -> bool: ...


@dataclass(slots=True)
class _Asked:
    """A part that somebody elsewhere was asked about, until the own model has spoken and it is settled."""

    job: Job
    model: LineModel
    due_ns: int
    verdict: Verdict | None = None  # of the answer that decided it
    is_over: bool = False  # no answer can come any more
    own: Judged | None = None
    settle: Settle | None = None  # what to do with the own answer when the time is over


class RemoteFirst:
    """See the module. Any thread may call any method."""

    def __init__(self, elsewhere: Elsewhere, cfg: DecisionConfig, share: float, settle: Settle, clock: Clock) -> None:
        """share: of the deadline. settle: takes what decides a part."""
        self._elsewhere = elsewhere
        self._share_ns = round(share * cfg.deadline_ms * MS)
        self._settle = settle
        self._clock = clock
        self._asked: dict[PartKey, _Asked] = {}
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def ask(self, job: Job, model: LineModel) -> None:
        """Have a part judged elsewhere, too. Does not wait."""
        due_ns = job.trigger.at_ns + self._share_ns
        if model.elsewhere is None:
            return
        if self._clock() >= due_ns:
            self._counts["no_time"] += 1
            return
        asked = _Asked(job, model, due_ns)
        with self._lock:
            self._asked[job.trigger.key] = asked
        if not self._elsewhere.ask(
            job.frame.image, model.elsewhere, due_ns, lambda prediction: self._told(asked, prediction)
        ):
            with self._lock:
                del self._asked[job.trigger.key]

    def own(self, job: Job, judged: Judged, settle: Settle | None = None) -> None:
        """What the box itself makes of a part. Settled with that, now or when the other's time is over, unless the
        other has answered. settle: instead of the usual one."""
        settle = settle or self._settle
        with self._lock:
            asked = self._asked.get(job.trigger.key)
            if asked is not None and asked.verdict is None and not asked.is_over and self._clock() < asked.due_ns:
                asked.own, asked.settle = judged, settle
                return
            self._asked.pop(job.trigger.key, None)
        if asked is None or asked.verdict is None:
            settle(job, judged)
        else:
            self._compare(asked.verdict, judged)

    def expire(self, now_ns: int) -> None:
        """Parts whose own answer was held for as long as may be are settled with it. To be called from `due_ns` on."""
        with self._lock:
            over = [asked for asked in self._asked.values() if asked.own is not None and asked.due_ns <= now_ns]
            for asked in over:
                del self._asked[asked.job.trigger.key]
        for asked in over:
            self._by_own(asked)

    @property
    def due_ns(self) -> int | None:
        """When the first of those that wait is to be settled; None while none waits."""
        with self._lock:
            return min((asked.due_ns for asked in self._asked.values() if asked.own is not None), default=None)

    def report(self) -> Mapping[str, Any]:
        counts = {name: self._counts[name] for name in ("no_time", "agreed", "disagreed")}
        return {**self._elsewhere.report(), **counts}

    def _told(self, asked: _Asked, prediction: Prediction | None) -> None:
        key = asked.job.trigger.key
        judged = _judge(asked.model, prediction)  # before anything is given up: what fails here leaves the own answer
        with self._lock:
            if self._asked.get(key) is not asked:
                return  # settled already
            if asked.own is not None:
                del self._asked[key]
            if judged is None or self._clock() >= asked.due_ns:
                judged, asked.is_over = None, True
            else:
                asked.verdict = judged.verdict
        if judged is not None:
            self._settle(asked.job, judged)
            if asked.own is not None:
                self._compare(judged.verdict, asked.own)
        elif asked.own is not None:
            self._by_own(asked)

    @staticmethod
    def _by_own(asked: _Asked) -> None:
        if asked.settle is not None and asked.own is not None:
            asked.settle(asked.job, asked.own)

    def _compare(self, verdict: Verdict, own: Judged) -> None:
        """How often both hold the same of a part says what the server is worth, and whether it is the right one."""
        if own.prediction is not None:
            with self._lock:
                self._counts["agreed" if own.verdict is verdict else "disagreed"] += 1


def _judge(model: LineModel, prediction: Prediction | None) -> Judged | None:
    """What the bundle's limits make of an answer; None for one that is none."""
    if prediction is None or not 0.0 <= prediction.score <= 1.0:
        return None
    verdict, reason = model.policy.judge(prediction)
    return Judged(prediction, verdict, Cause.MODEL, reason)
