"""The status document of a real box: what is in it, what other releases make of it, and what it costs to tell."""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_runtime.core.errors import ProtocolError
from edge_runtime.core.messages import Cause, Outcome, Verdict
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.control import ask
from tests.support.real_box import BEFORE, RealBox, running_box

COUNTED_ONCE_IT_HAPPENS = ("report.controller.outcome_", "report.controller.link.", "voice.request.")
# Where the document has grown since; older runs lack it.
NEW_IN_THIS = ("models", "last_part_s", "health.microphone", "report.pairing", "report.journal", "report.evidence",
               "report.microphone", "report.sound")  # fmt: skip


def values(told: object, above: str = "") -> Iterator[tuple[str, object]]:
    """Every dotted name in a document with what stands there; of a list its first."""
    named = told.items() if isinstance(told, dict) else list(enumerate(told))[:1] if isinstance(told, list) else ()
    for name, inner in named:
        here = f"{above}.{name}" if above else str(name)
        yield here, inner
        yield from values(inner, here)


def without(told: dict[str, Any], path: str) -> dict[str, Any]:
    lacking = copy.deepcopy(told)
    *way, last = path.split(".")
    inner = lacking
    for name in way:
        inner = inner[name]
    del inner[last]
    return lacking


def test_what_a_user_of_the_document_had_he_still_has(real_answer):
    there = dict(values(real_answer))
    for name, value in values(json.loads(BEFORE.read_text())):
        if not name.startswith(COUNTED_ONCE_IT_HAPPENS):
            assert name in there, name
            assert None in (value, there[name]) or type(value) is type(there[name]), name
    assert [name for name in NEW_IN_THIS if name not in there] == []


def test_what_a_run_of_the_release_before_says_is_understood():
    """A field that it lacks has come since, and needs a default in `Status` or the report."""
    shot = Status.from_json(json.loads(BEFORE.read_text()))
    assert (shot.version, shot.state, shot.health["sound"].state) == ("0.1.0", State.OK, State.OK)
    assert shot.voice and shot.voice.microphone.chunks > 0 and shot.voice.others["request.silent"] == 1
    assert shot.report.microphone is shot.report.journal is shot.report.pairing is None and shot.models == {}


def test_every_component_tells_its_health_and_its_report(real_status):
    assert set(real_status.health) == {
        "line", "camera", "model", "controller", "microphone", "voice", "sound", "journal", "evidence"
    }  # fmt: skip
    assert real_status.is_well and real_status.health["microphone"].state is State.OK
    report = real_status.report
    assert report.model.done > 0 and report.camera.frames > 0
    assert report.controller.is_armed and report.controller.opened == 1
    assert report.pairing and report.pairing.paired >= report.model.done
    assert report.journal and report.journal.durable > 0 and report.journal.lost == {}
    assert report.evidence and sum(report.evidence.kept.values()) > 0
    assert report.microphone and report.microphone.driver == "wav" and report.microphone.chunks > 0
    assert report.sound and report.sound.model == "hum@1" and report.sound.judged > 0 and not report.sound.is_abnormal


def test_counts_models_and_voice_are_typed(real_status):
    assert set(real_status.verdicts) == set(Verdict) and set(real_status.outcomes) == set(Outcome)
    assert set(real_status.causes) == set(Cause)
    assert {seat: model.label for seat, model in real_status.models.items()} == {
        "line": real_status.model, "voice": "commands-embed@1", "sound": "hum@1"
    }  # fmt: skip
    assert all(len(model.digest) == 64 for model in real_status.models.values())
    assert real_status.models["line"].digest == real_status.model_digest
    voice = real_status.voice
    assert voice and voice.requests >= 1 and voice.recent[-1].outcome == "silent"
    assert 0 < real_status.latency_ms.invoke.p50 <= real_status.latency_ms.invoke.max


def test_it_is_written_as_it_was_read(real_answer):
    assert Status.from_json(real_answer).to_json() == real_answer


@pytest.mark.parametrize("key", NEW_IN_THIS)
def test_what_is_new_may_lack(real_answer, key):
    assert Status.from_json(without(real_answer, key)).parts == real_answer["parts"]


@pytest.mark.parametrize("key", ["parts", "health", "report.camera.driver", "latency_ms.invoke.p99", "retention.says"])
def test_a_document_that_lacks_what_there_always_was_is_refused_by_name(real_answer, key):
    way, _, last = f"status.{key}".rpartition(".")
    with pytest.raises(ProtocolError, match=f"^{way} has no '{last}'"):
        Status.from_json(without(real_answer, key))


@pytest.mark.parametrize(
    "where",
    ["", "report", "report.camera", "report.journal", "health.line", "latency_ms", "latency_ms.invoke", "recent.0",
     "voice", "voice.microphone", "voice.voice_activity", "voice.recent.0", "models.line", "retention"],
)  # fmt: skip
def test_a_newer_run_may_tell_more_at_every_place(real_answer, where):
    newer = inner = copy.deepcopy(real_answer)
    for name in where.split(".") if where else ():
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner["told_by_a_newer_run"] = {"a": [1]}
    assert Status.from_json(newer).parts == real_answer["parts"]


def test_telling_it_holds_the_interpreter_for_less_than_five_milliseconds(real_status):
    """The inspecting threads wait for as long as the document is made into text; it has 5 ms at most."""
    took_ms = []
    for _ in range(50):
        begun = time.thread_time_ns()
        json.dumps(real_status.to_json(), separators=(",", ":"))
        took_ms.append((time.thread_time_ns() - begun) / 1e6)
    assert statistics.median(took_ms) < 5.0


def test_a_station_without_a_microphone_tells_of_none(tmp_path):
    with running_box(tmp_path / "state", "recording.evidence=false") as box:
        told = ask(box.socket, "status")
        shot = Status.from_json(told)
    assert told["voice"] is None and shot.voice is None
    assert not {"microphone", "voice", "sound", "evidence"} & set(shot.health)
    assert shot.report.microphone is shot.report.sound is shot.report.evidence is None
    assert list(shot.models) == ["line"]


def test_how_long_ago_the_last_part_came_is_told_from_the_first_part_on_and_grows_while_none_comes(tmp_path):
    box = RealBox(tmp_path / "state", "world.parts_per_s=0.4")
    box.start()
    try:
        early = box.until(lambda shot: shot.is_well)
        assert (early.last_part_s is None) == (early.parts == 0)
        seen = box.until(lambda shot: shot.last_part_s is not None and shot.last_part_s < 1.0)
        later = box.until(lambda shot: shot.last_part_s is not None and shot.last_part_s > 1.5)
        assert seen.parts > 0 and later.last_part_s < later.uptime_s
        assert later.uptime_s - seen.uptime_s >= 0.5
    finally:
        box.kill()


def test_a_microphone_that_cannot_be_had_is_told_and_costs_no_part(tmp_path):
    heard = ['microphone.driver="wav"', f'microphone.file="{tmp_path}/missing.wav"', 'voice.wake=""']
    with running_box(tmp_path / "state", *heard, 'voice.grammar="off"') as box:
        shot = box.until(lambda shot: shot.health["voice"].state is State.DEGRADED)
        assert shot.health["microphone"].state is State.STOPPED
        assert shot.state is State.DEGRADED and shot.health["line"].state is State.OK
        assert box.end()["unaccounted"] == 0
    assert "microphone.file" in shot.health["voice"].detail


def test_a_voice_that_cannot_be_had_is_an_empty_one_as_ever(tmp_path):
    with running_box(tmp_path / "state", 'microphone.driver="sim"', 'voice.model="nonsense"') as box:
        told = ask(box.socket, "status")
        shot = Status.from_json(told)
    assert told["voice"] == {} and shot.voice is None and shot.to_json() == told
    assert "no model 'nonsense'" in shot.health["voice"].detail and "microphone" in shot.health
