"""What a running box can be asked over its control socket, and by whom: `status`, `top`, the page, `sync`, the keys.

Every request is `{"do": NAME, ...}`; every handler answers JSON types or raises EdgeError with a sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import DeviceError, UsageError
from edge_runtime.core.log import AUDIT
from edge_runtime.core.messages import Command
from edge_runtime.decision.dialog import Act
from edge_runtime.lines.voice_line import VoiceLine
from edge_runtime.modelstore.slots_file import Held
from edge_runtime.predictors.model_switch import Request
from edge_runtime.process.control import Handler
from edge_runtime.recording import say_label
from edge_runtime.station.person_requests import decide_waiting, waiting_part
from edge_runtime.station.wiring import Box

log = logging.getLogger(__name__)

DEGREES = (Automation.HUMAN_ONLY, Automation.PARTIAL, Automation.FULL)  # upwards
MOST_TEXT = 200  # characters of a search


def box_requests(box: Box) -> Mapping[str, Handler]:
    """name -> handler."""
    return {
        "model": lambda words: _model(box, words),
        "automation": lambda words: _automation(box, words),
        "hold": lambda words: _hold(box, words),
        say_label.REQUEST: lambda words: _label(box, words),
        "rescan": lambda words: _rescan(box, words),
        "preview": box.preview.answer,
        "waiting": lambda words: waiting_part(box.line, words),
        "decide": lambda words: decide_waiting(box.line, words),
        "resume": lambda words: {"resumed": box.desk.resume(_word(words, "by", "cli"))},
        "listen": lambda _: {"says": _voice(box).push()},
        "cancel": lambda _: {"says": _voice(box).cancel()},
        "search": lambda words: _search(box, words),
        "choose": lambda words: {"says": _voice(box).choose(_word(words, "code"))},
    }


def _model(box: Box, words: Mapping[str, Any]) -> dict[str, Any]:
    """`version` and `digest` are the bundle that is meant: what stands in the slot may be another by the time this is
    heard, and is refused then. Who names none takes what stands there when it is heard."""
    verb = _word(words, "verb")
    if verb not in ("promote", "rollback"):
        raise UsageError(f"verb {verb!r} is none of promote, rollback")
    name, version = _word(words, "name", box.model.bundle.manifest.name), _word(words, "version", "")
    by, why = _word(words, "by", "cli"), _word(words, "why", "")
    wanted = Held(version, _word(words, "digest", "")) if version else None
    request = Request("promote" if verb == "promote" else "rollback", name, wanted, by, why)
    before = box.model.label
    now = box.model.switch(request)
    log.warning("model.%s before=%s now=%s by=%s why=%s", verb, before, now, by, why, extra=AUDIT)
    return {"before": before, "now": now}


def _automation(box: Box, words: Mapping[str, Any]) -> dict[str, Any]:
    """`only_down`: whoever asks from afar may give work to people, not take it from them."""
    try:
        degree = Automation(_word(words, "degree"))
    except ValueError as err:
        raise UsageError(f"{err}; degrees are {', '.join(one.value for one in DEGREES)}") from err
    before = box.line.automation
    if words.get("only_down") and DEGREES.index(degree) > DEGREES.index(before):
        raise UsageError(
            f"from afar automation goes downwards only: it is {before.value}, not to become {degree.value}"
        )
    box.set_automation(degree)
    return {"before": before.value, "now": degree.value}


def _hold(box: Box, words: Mapping[str, Any]) -> dict[str, Any]:
    """The same as the words `stop line`: only `resume` ends it."""
    box.desk.carry_out(Act(Command.STOP_LINE), _word(words, "by", "cli"))
    return {"held_by": box.desk.held_by}


def _rescan(box: Box, words: Mapping[str, Any]) -> dict[str, Any]:
    """The same as the word `rescan`: somebody wants the last part to pass once more."""
    by = _word(words, "by", "cli")
    box.desk.carry_out(Act(Command.RESCAN), by)
    return {"by": by}


WRITTEN_S = 2.0  # for a label to be on the disk; where the disk refuses it waits in memory, and the answer says so


def _label(box: Box, words: Mapping[str, Any]) -> dict[str, Any]:
    """What a person said about a part, as recording/say_label.py asks it; whether it is on the disk."""
    box.line.label(say_label.of_words(words, monotonic_ns()))
    return {"is_written": box.journal.flush(WRITTEN_S)}


def _search(box: Box, words: Mapping[str, Any]) -> dict[str, Any]:
    found = _voice(box).ask(_word(words, "text"))
    return {"results": list(found.results), "near": list(found.near)}


def _voice(box: Box) -> VoiceLine:
    voice = box.voice
    if voice is None:
        raise DeviceError("this station has no microphone", "set microphone.driver")
    if voice.line is None:
        raise DeviceError(voice.health().detail)
    return voice.line


def _word(words: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = words.get(name, default)
    if not isinstance(value, str):
        raise UsageError(f"the request needs {name!r} as text")
    if not value.isprintable() or len(value) > MOST_TEXT:  # it goes into journal and log
        raise UsageError(f"{name!r} is too long or holds characters that cannot be printed")
    return value
