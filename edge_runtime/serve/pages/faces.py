"""What the line does at this moment, as one word that the pages have a face for: what it means for the parts on the
belt, and what to do. Every state that a box can be in has one; the sentences stand in `static/messages/`.
"""

from __future__ import annotations

from enum import StrEnum

from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.ask_status import Silence


class Face(StrEnum):
    """The first that is true counts, in the order of `face_of`."""

    RUN_GONE = "run_gone"  # nobody runs there
    NOT_ANSWERING = "not_answering"  # it holds its devices and hangs
    NOT_ALLOWED = "not_allowed"  # it may not be asked
    OTHER_VERSION = "other_version"
    CONTROLLER_SILENT = "controller_silent"
    CAMERA_LOST = "camera_lost"
    MODEL_FAILED = "model_failed"
    STARTING = "starting"
    HELD = "held"
    DISK_FULL = "disk_full"  # inspects, and what it decides is not kept
    WAITS_FOR_PERSON = "waits_for_person"
    NO_PARTS = "no_parts"
    RUNNING = "running"


_SILENT = {
    Silence.STOPPED: Face.RUN_GONE,
    Silence.NO_ANSWER: Face.NOT_ANSWERING,
    Silence.REFUSED: Face.NOT_ALLOWED,
    Silence.UNREADABLE: Face.OTHER_VERSION,
}
_NOTHING = ComponentHealth(State.OK, "", None)


def face_of_silence(silence: Silence) -> Face:
    return _SILENT[silence]


def face_of(status: Status) -> Face:
    """Of a box that answers."""

    def state(name: str) -> State:
        return status.health.get(name, _NOTHING).state

    if status.state is State.STARTING or state("model") is State.STARTING:
        return Face.STARTING
    if status.held_by:  # the far side is told to hold: it may well be disarmed by it
        return Face.HELD
    if not status.report.controller.is_armed or state("controller") is State.FAILED:
        return Face.CONTROLLER_SILENT
    if state("camera") in (State.FAILED, State.STOPPED):
        return Face.CAMERA_LOST
    if state("model") in (State.FAILED, State.STOPPED):
        return Face.MODEL_FAILED
    if State.FAILED in (state("journal"), state("evidence")):
        return Face.DISK_FULL
    if status.report.waiting_for_person:
        return Face.WAITS_FOR_PERSON
    return Face.RUNNING if status.parts else Face.NO_PARTS
