"""What a running box tells about itself: the status document (core/status.py) filled, and the run's summary."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime import __version__
from edge_runtime.core.glance import ComponentHealth, Latencies, RecentPart, RetentionReport
from edge_runtime.core.messages import Decision
from edge_runtime.core.status import Reports, Status, VoiceReport
from edge_runtime.core.typed_json import from_json
from edge_runtime.flow.components import Health, State
from edge_runtime.lines.vision_line import VisionLine

if TYPE_CHECKING:  # whoever only wants to know its memory must not load every part there is
    from edge_runtime.config.load import Loaded
    from edge_runtime.recording.journal import Journal
    from edge_runtime.station.wiring import Box

MICROPHONE = "microphone"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mb() -> float:
    """Resident memory of this process now, in MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * _PAGE / 1e6, 1)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 3)


def overall(healths: Mapping[str, Health]) -> State:
    """The worst of all components, as one word for the lamp.

    The microphone does not count: voice and machine sound say what its loss costs, and no part is inspected by ear.
    """
    order = [State.FAILED, State.DEGRADED, State.STARTING, State.STOPPED, State.OK]
    states = [health.state for name, health in healths.items() if name != MICROPHONE]
    return min(states, key=order.index, default=State.STOPPED)


def snapshot(box: Box, loaded: Loaded, *, parts_asked: int | None, started_ns: int, now_ns: int) -> Status:
    """One look at the box, from any thread. It waits for nothing, least of all for the disk."""
    line, station, healths = box.line, loaded.config.station, box.healths()
    counts = line.ledger.counts()
    return Status(
        station=station.name,
        site=station.site,
        line=station.line,
        model=box.model.label,
        model_digest=box.model.bundle.digest,
        config=loaded.origin,
        config_digest=loaded.digest,
        run=box.run_id,
        parts_asked=parts_asked,
        automation=line.automation,
        held_by=box.desk.held_by,
        voice=from_json(VoiceReport, box.voice.report(), "voice") if box.voice and box.voice.line else None,
        retention=from_json(RetentionReport, box.journal.retention.report(), "retention"),
        version=__version__,
        pid=os.getpid(),
        state=overall(healths),
        uptime_s=round((now_ns - started_ns) / 1e9, 1),
        health={name: _health(health, now_ns) for name, health in healths.items()},
        parts=counts.triggers,
        last_part_s=_age_s(line.ledger.last_trigger_ns, now_ns),
        verdicts=counts.verdicts,
        causes=counts.causes,
        outcomes=counts.outcomes,
        late=counts.late,
        on_belt=line.ledger.open_parts,
        latency_ms=from_json(Latencies, latency(line), "latency_ms"),
        recent=tuple(_recent(decision, box.journal) for decision in list(line.recent)),
        report=from_json(Reports, box.reports(), "report"),
        rss_mb=rss_mb(),
        cpu_s=cpu_s(),
        models=box.models(),
    )


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
    if why := line.not_judged.reasons(line.camera.last_trouble):
        document["why"] = dict(why)
    if line.remote is not None:
        document["origins"] = dict(line.origins)
        document["remote"] = dict(line.remote.report())
    if truth is not None:
        document["truth"] = dict(truth)
    return document


def _health(health: Health, now_ns: int) -> ComponentHealth:
    age_ms = None if health.progress_ns is None else round((now_ns - health.progress_ns) / 1e6, 1)
    return ComponentHealth(health.state, health.detail, age_ms)


def _age_s(at_ns: int | None, now_ns: int) -> float | None:
    """at_ns: the host's estimate of a moment at the photo-eye, which may be a little ahead of now."""
    return None if at_ns is None else round(max(0, now_ns - at_ns) / 1e9, 1)


def _recent(decision: Decision, journal: Journal) -> RecentPart:
    return RecentPart(
        part=decision.key.part_id,
        verdict=decision.verdict,
        cause=decision.cause,
        reason=decision.reason,
        score=decision.score,
        ms=round((decision.decided_ns - decision.trigger_ns) / 1e6, 2),
        origin=decision.origin,
        is_recorded=journal.is_recorded(decision.key),
    )
