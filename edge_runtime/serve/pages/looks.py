"""From what `run` tells to what the pages are told."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.part_view import PartView
from edge_runtime.core.state import State
from edge_runtime.core.status import Status, VoiceReport
from edge_runtime.process.ask_status import Silence
from edge_runtime.serve.pages.alarms import FREE_RUNNING, Alarm, alarms_of
from edge_runtime.serve.pages.documents import Asked, LineLook, PartLook, VoiceLook
from edge_runtime.serve.pages.faces import Face, face_of, face_of_silence
from edge_runtime.serve.pages.names import Names


@dataclass(frozen=True, slots=True)
class AboutStation:
    """What the station file says, whether or not the box answers."""

    station: str
    site: str
    line: str
    safe_action: str


ASKED_SHOWN = 4  # requests of operators on the screen

_WHOSE_WORDS = {  # whose health says why
    Face.STARTING: "model",
    Face.CONTROLLER_SILENT: "controller",
    Face.CAMERA_LOST: "camera",
    Face.MODEL_FAILED: "model",
    Face.DISK_FULL: "journal",
}


def look_of(status: Status, names: Names, about: AboutStation) -> LineLook:
    """Of a box that answers."""
    face, journal = face_of(status), status.report.journal
    holder, held_ms = names.holder() if status.held_by else ("", 0)
    return LineLook(
        face=face,
        detail=status.health.get(_WHOSE_WORDS.get(face, ""), ComponentHealth(State.OK, "", None)).detail,
        station=status.station,
        site=status.site,
        line=status.line,
        automation=status.automation,
        safe_action=about.safe_action,
        model=status.model,
        recipe="",
        lot="",
        held_by=holder,
        held_why=status.held_by,
        held_since_ms=held_ms,
        run=status.run or 0,
        uptime_s=round(status.uptime_s),
        parts=status.parts,
        on_belt=status.on_belt,
        waiting_for_person=status.report.waiting_for_person,
        late=status.late,
        verdict_ms_p99=status.latency_ms.trigger_to_verdict.p99,
        is_clock_sure=journal is None or journal.time_quality != FREE_RUNNING,
        alarms=alarms_of(status),
        voice=_voice(status.voice, names) if status.voice else None,
    )


def look_of_silence(silence: Silence, why: str, about: AboutStation) -> LineLook:
    """Of a box that does not say how it is; what the station file says of it is known all the same."""
    priority = "high" if silence in (Silence.STOPPED, Silence.NO_ANSWER) else "medium"
    return LineLook(
        face=face_of_silence(silence), detail=why, station=about.station, site=about.site, line=about.line,
        automation="", safe_action=about.safe_action, model="", recipe="", lot="", held_by="", held_why="",
        held_since_ms=0, run=0, uptime_s=0.0, parts=0, on_belt=0, waiting_for_person=0, late=0, verdict_ms_p99=0.0,
        is_clock_sure=True, alarms=(Alarm("run", priority, why),), voice=None,
    )  # fmt: skip


def _voice(voice: VoiceReport, names: Names) -> VoiceLook:
    asked = tuple(
        Asked(
            request.source,
            request.transcript,
            request.command or "",
            request.outcome,
            request.reason,
            tuple(names.of_code(code) for code in request.results[:3]),
        )
        for request in voice.recent[-ASKED_SHOWN:]
    )
    return VoiceLook(voice.mode, voice.says, tuple(names.of_code(code) for code in voice.shown), asked)


def part_look(view: PartView) -> PartLook:
    return PartLook(
        part=view.part,
        verdict=view.verdict,
        cause=view.cause,
        reason=view.reason,
        score=view.score,
        ms=view.ms,
        model=view.model,
        regions=view.regions,
        width=view.width,
        height=view.height,
        has_picture=bool(view.picture),
        has_heat=bool(view.heat),
    )
