"""How quick the model is on this box, for `doctor` and `bench`.

While a line runs its own figures say it: what is measured beside it measures the contention of the two, and takes parts
from its model. Otherwise the model is timed here, and a moment in which something else had the processor does not count
as the model's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from edge_runtime.commissioning.finding import Finding, Level
from edge_runtime.core.messages import Cause
from edge_runtime.core.status import Status
from edge_runtime.core.typed_json import to_json

MODEL_SHARE = 0.5  # of the deadline that the model may take before there is too little slack
MISSED_SHARE = 0.01  # of the parts, without an answer of the model in time, before a person should look
PROBES = 30
FEWEST_UNDISTURBED = 10  # of the probes, for a figure that is the model's
WAITED_MS = 1.0  # wall time beyond processor time; what a timer tick and a page fault explain
SLOW_FIX = "a smaller model, fewer other programs, or a later deadline"
NOT_IN_TIME = (Cause.DEADLINE, Cause.OVERLOAD, Cause.ENGINE_FAULT)


def line_figures(box: Status) -> dict[str, Any]:
    """JSON types: a running line's latencies, and the parts that its model did not decide in time."""
    missed = _missed(box)
    return {
        "parts": box.parts,
        "latency_ms": to_json(box.latency_ms),
        "not_in_time": missed,
        "not_in_time_share": _share(box, missed),
        "late": box.late,
    }


def of_running_line(box: Status, deadline_ms: float) -> Finding:
    if not box.parts:
        return Finding("model.speed", "ok", f"process {box.pid} has seen no part yet: nothing is measured beside it")
    invoke, whole, missed = box.latency_ms.invoke, box.latency_ms.trigger_to_verdict, _missed(box)
    share = _share(box, missed)
    detail = (
        f"as the running line measured: model median {invoke.p50:.1f} ms, p99 {invoke.p99:.1f} ms; photo-eye to "
        f"verdict p99 {whole.p99:.1f} of {deadline_ms:.0f} ms; {sum(missed.values())} of {box.parts} parts "
        f"({100 * share:.2g} %) not decided by the model in time"
        + "".join(f", {name} {count}" for name, count in missed.items() if count)
        + f"; {box.late} verdicts late at the gate"
    )
    is_missing = max(share, box.late / box.parts) > MISSED_SHARE
    is_slow = is_missing or invoke.p99 > MODEL_SHARE * deadline_ms
    return Finding("model.speed", "warn", detail, SLOW_FIX) if is_slow else Finding("model.speed", "ok", detail)


def _missed(box: Status) -> dict[str, int]:
    return {cause.value: box.causes.get(cause, 0) for cause in NOT_IN_TIME}


def _share(box: Status, missed: dict[str, int]) -> float:
    return round(sum(missed.values()) / box.parts, 5) if box.parts else 0.0


def measured(call: Callable[[], object], deadline_ms: float, about: str) -> Finding:
    """Time `call` where no line runs. about: what else is to be told of the model."""
    took = sorted(_probe(call) for _ in range(PROBES))
    undisturbed = [wall_ms for wall_ms, waited_ms in took if waited_ms <= WAITED_MS]
    if len(undisturbed) < FEWEST_UNDISTURBED:
        what = (
            f"cannot be measured now: something else had the processor in {PROBES - len(undisturbed)} of {PROBES} "
            f"moments (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores), {about}"
        )
        return Finding("model.speed", "warn", what, "find out what else runs here: top; then ask again")
    median, worst = undisturbed[len(undisturbed) // 2], undisturbed[-1]
    detail = f"median {median:.1f} ms, worst {worst:.1f} ms of {deadline_ms:.0f} ms, {about}"
    if len(undisturbed) < PROBES:
        detail += f"; {PROBES - len(undisturbed)} of {PROBES} were kept waiting by other programs and do not count"
    level: Level = "warn" if worst > MODEL_SHARE * deadline_ms else "ok"
    return Finding("model.speed", level, detail, SLOW_FIX if level == "warn" else "")


def _probe(call: Callable[[], object]) -> tuple[float, float]:
    """How long one call took, and how much of that no thread of this process was running; ms."""
    wall, processor = time.perf_counter_ns(), time.process_time_ns()
    call()
    wall_ms = (time.perf_counter_ns() - wall) / 1e6
    return wall_ms, wall_ms - (time.process_time_ns() - processor) / 1e6
