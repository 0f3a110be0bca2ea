"""What may happen on a box that is not about one part: one table of all kinds of events.

A kind is a stable, dotted name that journal, records, page and alarms share. Beside it stand how bad it is, what
happened in words, and the keys its detail may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Severity(StrEnum):
    """How soon somebody should know."""

    INFO = "info"  # as it should be
    WARNING = "warning"  # the box helps itself, or less is known than should be
    ERROR = "error"  # parts are not judged, or something is lost, until somebody looks


_INFO, _WARNING, _ERROR = Severity
_SLOT = ("at", "name", "before", "now", "digest", "by", "why")  # of a change of a model's slot
_UPDATE = ("model", "release", "digest", "source", "cause", "why")
_ORDER = ("at", "command", "key", "do", "args", "result", "reason")  # of a command, as the audit has it
_HEARD = ("model", "score", "worst", "lasted_s")
_SHORT = ("why", "journal", "now", "first", "last", "found", "missing", "parts")  # what a journal no longer holds
_FILES = ("what", "how", "file")  # what was done to its files


class EventKind(StrEnum):
    """Each member: the name, its severity, what happened, the keys of its detail."""

    severity: Severity
    says: str
    fields: tuple[str, ...]

    def __new__(cls, name: str, severity: Severity, says: str, *fields: str) -> EventKind:
        kind = str.__new__(cls, name)
        kind._value_, kind.severity, kind.says, kind.fields = name, severity, says, fields
        return kind

    # fmt: off
    LINK_UP = "link.up", _INFO, "the controller answers and is armed", "boot_id"
    LINK_LOST = "link.lost", _ERROR, "the controller no longer answers", "reason"
    LINK_REFUSED = "link.refused", _ERROR, "the controller refuses what the station file asks of it", "reason"
    LINK_BLOCKED = "link.blocked", _WARNING, "an input keeps the controller from being armed", "reason"
    CONTROLLER_TRIPPED = "controller.tripped", _ERROR, "the controller has let go of its healthy output", "reason"
    CONTROLLER_RESET = "controller.reset", _WARNING, "the controller started anew", "old_boot_id", "new_boot_id"
    CONTROLLER_EVENTS_LOST = "controller.events_lost", _WARNING, "the controller had more to tell than it could keep", \
        "count"
    CONTROLLER_PARTS_MISSED = "controller.parts_missed", _WARNING, "parts passed while nobody was there to see them", \
        "boot_id", "first", "last", "untold"
    GATE_UNCONFIRMED = "gate.unconfirmed", _ERROR, "the gate fired and its sensor saw nothing", "boot_id", "part_id"
    INPUT_BIN_FULL = "input.bin_full", _WARNING, "the reject bin became full, or was emptied", "on", "what"
    INPUT_AIR_LOW = "input.air_low", _ERROR, "the gate's air went, or came back", "on", "what"
    INPUT_ENCODER_LOST = "input.encoder_lost", _ERROR, "the encoder went, or came back", "on", "what"
    INPUT_BELT_REVERSED = "input.belt_reversed", _WARNING, "the belt ran backwards, or forwards again", "on", "what"
    VERDICT_LATE = "verdict.late", _WARNING, "a verdict came after the decide point", "boot_id", "part_id", "in_force"
    VERDICT_UNKNOWN = "verdict.unknown", _WARNING, "the controller knows no such part", "boot_id", "part_id", "in_force"
    VERDICT_CONFLICT = "verdict.conflict", _WARNING, "another verdict came first", "boot_id", "part_id", "in_force"
    VERDICT_NOT_ARMED = "verdict.not_armed", _WARNING, "the controller takes no verdicts", "boot_id", "part_id", \
        "in_force"
    CAMERA_LOST = "camera.lost", _ERROR, "the camera no longer delivers", "camera", "why"
    CAMERA_REOPENED = "camera.reopened", _INFO, "the camera delivers again", "camera", "attempts"
    CAMERA_BLIND = "camera.blind", _ERROR, "picture after picture shows nothing that can be judged", "camera", "why", \
        "parts"
    CAMERA_SEES = "camera.sees", _INFO, "the pictures can be judged again", "camera", "parts"
    PICTURE_INVALID = "picture.invalid", _WARNING, "pictures that show nothing were not judged", "camera", "why", \
        "parts"
    ENGINE_FAULT = "engine.fault", _WARNING, "the model hung or failed, and was replaced", "error", "part"
    MODEL_SWAPPED = "model.swapped", _INFO, "another model judges from this part on", "before", "now"
    MODEL_STAGED = "model.staged", _INFO, "a version was made the candidate", *_SLOT
    MODEL_PROMOTED = "model.promoted", _INFO, "a version was put to work", *_SLOT
    MODEL_ROLLED_BACK = "model.rolled_back", _WARNING, "the version before was put back to work", *_SLOT
    MODEL_SET = "model.set", _INFO, "the station file names another version", *_SLOT
    MODEL_UNDONE = "model.undone", _WARNING, "a switch could not be completed, and was taken back", *_SLOT
    MODEL_INSTALLED = "model.installed", _INFO, "a bundle came into the store; `why` says where from", *_SLOT
    MODEL_QUARANTINED = "model.quarantined", _ERROR, "a bundle failed its own test and must not run", *_SLOT
    MODEL_UPDATE_REFUSED = "model.update_refused", _WARNING, "a signed update was not taken", *_SLOT
    UPDATE_AVAILABLE = "update.available", _INFO, "a newer release of a model lies in its repository", *_UPDATE
    UPDATE_FETCHED = "update.fetched", _INFO, "a newer release was fetched and waits for `models update`", *_UPDATE
    UPDATE_REFUSED = "update.refused", _WARNING, "the repository of updates is not to be trusted, or too old", *_UPDATE
    MODEL_CHANGED = "model.changed", _INFO, "a slot changed in a way that this version has no name for", *_SLOT
    MODEL_FELL_BACK = "model.fell_back", _ERROR, "a version could not be loaded, and the one before runs", *_SLOT
    REMOTE_ANSWERS = "remote.answers", _INFO, "an inference server is asked first about each part", "server"
    REMOTE_LOST = "remote.lost", _WARNING, "the inference server failed; the box's own model judges alone", "why"
    AUTOMATION_SET = "automation.set", _INFO, "somebody changed who decides", "before", "now"
    OPERATOR_HOLD = "operator.hold", _WARNING, "an operator held the line", "by", "why"
    OPERATOR_RESUMED = "operator.resumed", _INFO, "an operator let the line go on", "by", "after"
    OPERATOR_NO_PART = "operator.no_part", _INFO, "an operator spoke of a part, and none waited", "by", "said"
    OPERATOR_RESCAN = "operator.rescan", _INFO, "an operator wants the last part to pass once more", "by", "part"
    SOUND_ABNORMAL = "sound.abnormal", _WARNING, "the machine sounds unlike what was learnt", *_HEARD
    SOUND_NORMAL = "sound.normal", _INFO, "the machine sounds as it should again", *_HEARD
    SOUND_INVALID = "sound.invalid", _WARNING, "the microphone hears nothing that can be judged", "model", "why"
    SOUND_VALID = "sound.valid", _INFO, "what the microphone hears can be judged again", "model"
    JOURNAL_RECOVERED = "journal.recovered", _INFO, "parts that a killed run left open were closed", "parts"
    JOURNAL_RESCUED = "journal.rescued", _WARNING, \
        "the journal's files were taken away, and every row was kept", *_FILES
    JOURNAL_WENT_BACK = "journal.went_back", _ERROR, "the journal holds less than it did", *_SHORT, *_FILES
    JOURNAL_SET_ASIDE = "journal.set_aside", _ERROR, \
        "the journal could not be used; its rows lie beside", *_SHORT, *_FILES
    JOURNAL_UNWRITTEN = "journal.unwritten", _ERROR, \
        "a run ended with rows that the disk refused", "run", "parts", "records"
    CLOCK_STEPPED = "clock.stepped", _WARNING, "the wall clock jumped", "from", "to", "by_s", "where", "steps"
    RETENTION_REMOVED = "retention.removed", _INFO, "what was old was removed, so many of each kind", \
        "evidence", "clips", "rows"
    NEW_EPOCH = "sync.new_epoch", _WARNING, "the outbox numbers its records anew", "why", "previous", "carried"
    OUTBOX_MENDED = "sync.outbox_mended", _WARNING, "the outbox was damaged while it was open, and mended", "file"
    JOURNAL_REPLACED = "sync.journal_replaced", _WARNING, "another journal lies in the place of the one before", \
        "before", "now"
    SYNC_WENT_BACK = "sync.journal_went_back", _WARNING, "the journal was read again from where it went back to", \
        "journal", "from", "to"
    NAME_TAKEN = "uplink.name_taken", _ERROR, "another box uses this box's name at the broker", "client_id", "host"
    UPLINK_PROVEN = "uplink.proven", _INFO, "the broker was seen to keep records", "protocol", "why"
    UPLINK_UNPROVEN = "uplink.unproven", _WARNING, "the broker acknowledges records and was not seen to keep them", \
        "protocol", "why"
    SET_ASIDE = "uplink.set_aside", _WARNING, "the broker refused records; they are kept beside", "count", "why", "seqs"
    COMMAND = "command", _INFO, "a command came in; `result` says what became of it", *_ORDER
    SPARKPLUG_BORN = "sparkplug.born", _INFO, "the Sparkplug host has the box's births", "server", "bdSeq"
    SPARKPLUG_LOST = "sparkplug.lost", _WARNING, "the Sparkplug connection went", "server", "phase", "reason"
    SPARKPLUG_LEFT = "sparkplug.left", _INFO, "the box left a Sparkplug server for the next", "why", "next_server"
    SPARKPLUG_COMMAND_REFUSED = "sparkplug.command_refused", _WARNING, "a Sparkplug host wrote what it may not", \
        "where", "why"
    # fmt: on


_BY_NAME: Mapping[str, EventKind] = {str(kind): kind for kind in EventKind}


def kind_of_change(verb: str) -> EventKind:
    """Of a change of a slot, whichever version of the product made it."""
    return _BY_NAME.get(f"model.{verb}", EventKind.MODEL_CHANGED)


def severity_of(kind: str) -> Severity:
    """Of a kind as it was written down, by whichever version of the product."""
    known = _BY_NAME.get(kind)
    return known.severity if known else Severity.WARNING
