"""What a running box tells about itself: one JSON document for `status`, `top` and the page, and the run's summary."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.core.messages import Decision
from edge_runtime.flow.components import Health, State
from edge_runtime.lines.vision_line import VisionLine

_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mb() -> float:
    """Resident memory of this process now, in MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * _PAGE / 1e6, 1)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 3)


def overall(healths: Mapping[str, Health]) -> State:
    """The worst of all components, as one word for the lamp."""
    order = [State.FAILED, State.DEGRADED, State.STARTING, State.STOPPED, State.OK]
    return min((health.state for health in healths.values()), key=order.index, default=State.STOPPED)


def snapshot(
    *, line: VisionLine, healths: Mapping[str, Health], identity: Mapping[str, Any], started_ns: int, now_ns: int
) -> dict[str, Any]:
    """JSON types only; `age_ms` is how long ago a component's loop last turned."""
    counts = line.ledger.counts()
    uptime_s = (now_ns - started_ns) / 1e9
    return {
        **identity,
        "version": __version__,
        "pid": os.getpid(),
        "state": overall(healths),
        "uptime_s": round(uptime_s, 1),
        "health": {name: _health(health, now_ns) for name, health in healths.items()},
        "parts": counts.triggers,
        "verdicts": counts.verdicts,
        "causes": counts.causes,
        "outcomes": counts.outcomes,
        "late": counts.late,
        "on_belt": line.ledger.open_parts,
        "latency_ms": latency(line),
        "recent": [_recent(decision) for decision in list(line.recent)],
        "report": line.report(),
        "rss_mb": rss_mb(),
        "cpu_s": cpu_s(),
    }


def latency(line: VisionLine) -> dict[str, dict[str, float]]:
    return {
        "trigger_to_verdict": line.trigger_to_verdict.summary(),
        "capture_to_verdict": line.capture_to_verdict.summary(),
        "invoke": line.inspector.invoke.summary(),
    }


def summary(
    *, line: VisionLine, model: str, config_digest: str, truth: Mapping[str, Any] | None, world_parts: int | None
) -> dict[str, Any]:
    """The document that `run --json` ends with, but for `unwritten`: parts of which something is not in the journal.

    `unaccounted` also counts simulated parts that never made a row.
    """
    counts = line.ledger.counts()
    unseen = max(0, world_parts - counts.triggers) if world_parts is not None else 0
    document: dict[str, Any] = {
        "parts": counts.triggers,
        "verdicts": counts.verdicts,
        "causes": counts.causes,
        "outcomes": counts.outcomes,
        "late": counts.late,
        "unaccounted": counts.unaccounted + unseen,
        "latency_ms": latency(line),
        "rss_mb": rss_mb(),
        "cpu_s": cpu_s(),
        "model": model,
        "config_digest": config_digest,
    }
    if truth is not None:
        document["truth"] = dict(truth)
    return document


def _health(health: Health, now_ns: int) -> dict[str, Any]:
    age = None if health.progress_ns is None else round((now_ns - health.progress_ns) / 1e6, 1)
    return {"state": health.state, "detail": health.detail, "age_ms": age}


def _recent(decision: Decision) -> dict[str, Any]:
    return {
        "part": decision.key.part_id,
        "verdict": decision.verdict,
        "cause": decision.cause,
        "reason": decision.reason,
        "score": decision.score,
        "ms": round((decision.decided_ns - decision.trigger_ns) / 1e6, 2),
    }
