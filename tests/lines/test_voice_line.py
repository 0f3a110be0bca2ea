"""From sound to deed: real voice detector and dialog, a scripted microphone, the shipped bundle where it matters."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.catalogue.searcher import Found
from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import MS
from edge_runtime.core.errors import DeviceError, ModelError
from edge_runtime.core.messages import Command
from edge_runtime.decision.dialog import Dialog
from edge_runtime.features.voice_activity import VoiceActivity, VoiceActivitySpec
from edge_runtime.flow.components import State
from edge_runtime.media.sound_file import read_sound
from edge_runtime.predictors.keyword import open_keyword_model
from edge_runtime.predictors.recogniser_chain import InOrder, KeywordRecogniser
from edge_runtime.predictors.wake_word import open_micro_wake_word
from edge_runtime.station.voice_wiring import wake_settings
from tests.lines.voice_rig import RATE_HZ, Rig, Says, burst, golden, keyword_bundle, quiet

WORD = burst()


class Wake:
    """Fires at one chunk."""

    def __init__(self, at_seq: int) -> None:
        self.at_seq = at_seq
        self.resets = 0

    def __call__(self, chunk) -> float:
        return 0.97 if chunk.seq == self.at_seq else 0.1

    def reset(self) -> None:
        self.resets += 1


def test_a_command_after_the_key_is_carried_out_after_the_moment_to_cancel():
    with scripted(Says("reject"), quiet(1), "push", quiet(0.4), WORD, quiet(3)) as rig:
        rig.play_out()
    assert [act.command for act in rig.acts] == [Command.REJECT]
    assert rig.sounds == ["open", "taken", "done"]
    (request,) = rig.requests
    assert (request.source, request.outcome, request.transcript, request.origin) == (
        "button",
        "done",
        "reject",
        "script@1",
    )
    spoken_ms, padding_ms = len(WORD) / 16, 600
    assert request.end_ns - request.start_ns == pytest.approx((spoken_ms + padding_ms) * MS, abs=250 * MS)


def scripted(recogniser, *script, **parts):
    """A rig whose script may name its own line: "push", "cancel"."""
    rig = Rig([], recogniser, **parts)
    named = {"push": rig.line.push, "cancel": rig.line.cancel}
    steps = [named[step] if isinstance(step, str) else step for step in script]
    rig.microphone._steps += Rig(steps, None).microphone._steps
    return rig


def test_speech_outside_a_window_is_never_recognised():
    says = Says("reject")
    with scripted(says, quiet(1), WORD, quiet(2)) as rig:
        rig.play_out()
        assert rig.line.report()["utterances"] == 1
    assert (says.heard, rig.acts, rig.requests) == ([], [], [])


def test_what_was_being_said_when_the_key_was_pressed_is_not_meant():
    says = Says("reject")
    talk = np.concatenate([WORD, WORD])
    with scripted(says, quiet(1), talk[:12_000], "push", talk[12_000:], quiet(4)) as rig:
        rig.play_out()
        assert rig.line.report()["utterances"] >= 1
    assert (says.heard, rig.acts) == ([], [])


def test_who_speaks_while_pressing_the_key_is_heard():
    says = Says("reject")
    with scripted(says, quiet(1), WORD[:1920], "push", WORD[1920:], quiet(3)) as rig:
        rig.play_out()
    assert [act.command for act in rig.acts] == [Command.REJECT]


def test_a_command_that_cannot_be_carried_out_is_noted_as_refused():
    rig = scripted(Says("pause"), quiet(1), "push", WORD, quiet(3))

    def refuse(act):
        raise DeviceError("the controller does not answer; check the cable")

    rig.line._carry_out = refuse
    with rig:
        rig.play_out()
        assert rig.line.health().state is State.OK
    assert (rig.requests[0].outcome, rig.requests[0].reason) == (
        "refused",
        "the controller does not answer; check the cable",
    )
    assert rig.sounds == ["open", "taken", "sorry"]


def test_the_wake_word_opens_a_window_and_is_itself_no_command():
    wake, says = Wake(at_seq=55), Says("pause")
    with scripted(says, quiet(1), WORD, quiet(0.3), WORD, quiet(3), wake=wake) as rig:
        rig.play_out()
        assert rig.line.report()["wakes"] == 1
    assert [act.command for act in rig.acts] == [Command.PAUSE]
    assert [request.source for request in rig.requests] == ["wake"]
    assert len(says.heard) == 1


def test_cancel_said_in_time_takes_a_command_back():
    with scripted(Says("reject", "cancel"), quiet(1), "push", WORD, quiet(0.5), WORD, quiet(2)) as rig:
        rig.play_out()
    assert rig.acts == []
    assert [request.outcome for request in rig.requests] == ["cancelled"]


def test_the_cancel_key_takes_a_command_back():
    with scripted(Says("reject"), quiet(1), "push", WORD, quiet(0.6), "cancel", quiet(2)) as rig:
        rig.play_out()
    assert (rig.acts, rig.requests[0].outcome) == ([], "cancelled")


def test_stop_line_waits_for_nobody():
    with scripted(Says("stop line"), quiet(1), "push", WORD, quiet(0.45)) as rig:
        rig.until(lambda: rig.acts)
        assert rig.clock() < 4_000 * MS
    assert rig.acts[0].command is Command.STOP_LINE


def test_full_automation_keeps_a_verdict_as_a_label():
    dialog = Dialog(Automation.FULL)
    with scripted(Says("reject"), quiet(1), "push", WORD, quiet(3), dialog=dialog) as rig:
        rig.play_out()
    assert rig.acts[0].as_label
    assert rig.requests[0].outcome == "noted"


def test_words_are_searched_for_and_a_choice_is_noted():
    with scripted(Says("grease"), quiet(1), "push", WORD, quiet(1)) as rig:
        rig.until(lambda: rig.line.report()["mode"] == "shown")
        assert rig.line.report()["shown"] == ["A742"]
        assert rig.line.choose("nonsense") == "grease"
        rig.line.choose("A742")
        rig.until(lambda: rig.requests)
    assert (rig.requests[0].choice, rig.requests[0].outcome) == ("A742", "answered")


def test_nothing_found_asks_again_and_counts_the_redo():
    rig = scripted(Says("grapes", "grease"), quiet(1), "push", WORD, quiet(1), WORD, quiet(1))
    rig.found = Found()
    with rig:
        rig.play_out()
    assert [(request.outcome, request.redo) for request in rig.requests[:2]] == [("empty", 0), ("empty", 1)]
    assert rig.sounds.count("sorry") == 2


def test_a_code_one_symbol_off_is_said_and_never_chosen():
    rig = scripted(Says("alpha seven four one", "grease"), quiet(1), "push", WORD, quiet(4))
    rig.found = Found((), ("A742",))
    with rig:
        rig.until(lambda: rig.requests)
        assert rig.line.report()["says"] == "no A741; one symbol off: A742, say it again"
        assert rig.line.report()["shown"] == []
        rig.play_out()
    assert (rig.requests[0].outcome, rig.requests[0].results, rig.requests[0].choice) == ("empty", (), None)


def test_a_recogniser_that_fails_is_an_utterance_not_understood():
    with scripted(Says(ModelError("gone"), "reject"), quiet(1), "push", WORD, quiet(1), WORD, quiet(3)) as rig:
        rig.play_out()
        assert rig.line.report()["recogniser_faults"] == 1
    assert [request.outcome for request in rig.requests] == ["unheard", "done"]
    assert [act.command for act in rig.acts] == [Command.REJECT]


def test_a_recogniser_that_breaks_is_told_and_the_line_goes_on():
    script = (quiet(1), "push", WORD, quiet(1), quiet(3), "push", WORD, quiet(3))
    with scripted(Says(ZeroDivisionError("a bug"), "reject"), *script) as rig:
        rig.play_out()
        assert rig.line.health().state is State.OK
        assert rig.line.report()["faults"] == 1
    assert [act.command for act in rig.acts] == [Command.REJECT]


def overdriven(pcm, over_db):
    """What a converter makes of a voice that is so much too loud for it."""
    gain = 32767 / np.abs(pcm.astype(np.float64)).max() * 10 ** (over_db / 20)
    return np.clip(np.rint(pcm * gain), -32768, 32767).astype(np.int16)


def test_speech_that_clipped_is_not_understood_and_the_person_is_told_why():
    says = Says("reject")
    with scripted(says, quiet(1), "push", overdriven(WORD, 30), quiet(4), "cancel") as rig:
        rig.until(lambda: rig.requests)
        assert "clipped" in rig.line.report()["says"]
        rig.play_out()
        assert rig.line.report()["invalid_utterances"] == 1
    assert (says.heard, rig.acts) == ([], [])
    assert rig.requests[0].outcome == "unheard" and rig.requests[0].reason.startswith("invalid_sound: clipped")


@pytest.mark.parametrize("over_db", [-20, 0, 3])
def test_loud_speech_that_touches_the_stop_is_understood(over_db):
    with scripted(Says("reject"), quiet(1), "push", overdriven(WORD, over_db), quiet(4)) as rig:
        rig.play_out()
    assert [act.command for act in rig.acts] == [Command.REJECT]


@pytest.mark.parametrize(
    "dead",
    [np.zeros(RATE_HZ, np.int16), np.full(RATE_HZ, 9, np.int16), np.tile([1, -1], RATE_HZ // 2).astype(np.int16),
     np.clip(quiet(1).astype(np.int32) * 30_000, -32768, 32767).astype(np.int16)],
    ids=["zeros", "one value", "last bit", "overdriven"],
)  # fmt: skip
def test_a_wake_word_found_in_a_channel_that_shows_nothing_opens_no_window(dead):
    with Rig([dead, dead], Says(), wake=Wake(60)) as rig:
        rig.until(rig.microphone.done.is_set)
        report = rig.line.report()
    assert (report["invalid_wakes"], report.get("wakes", 0), report["mode"]) == (1, 0, "idle")


def test_a_lost_microphone_is_left_to_its_driver():
    wake = Wake(at_seq=-1)
    lost = MicrophoneLost("cable")
    with scripted(Says("reject"), quiet(1), WORD[:4000], lost, quiet(1), "push", WORD, quiet(3), wake=wake) as rig:
        rig.play_out()
        assert rig.line.report()["lost"] == 1
        assert (rig.microphone.starts, rig.microphone.stops) == (1, 0)
    assert wake.resets == 2  # at the start and where the sound broke off
    assert [act.command for act in rig.acts] == [Command.REJECT]


def test_a_microphone_that_cannot_start_is_told_and_tried_again():
    rig = scripted(Says("reject"), quiet(1), "push", WORD, quiet(3))
    rig.microphone.fails_to_start = [DeviceError("no such file; set microphone.file")]
    with rig:
        rig.until(lambda: rig.line.health().state is State.DEGRADED or rig.microphone.starts > 1)
        if rig.microphone.starts == 1:
            assert "set microphone.file" in rig.line.health().detail
        while rig.microphone.starts < 2:
            rig.clock.advance_ms(100)
            rig.line._stop.wait(0.01)
        rig.play_out()
        assert rig.line.health().state is State.OK
    assert [act.command for act in rig.acts] == [Command.REJECT]


def test_a_window_opened_while_the_microphone_is_away_still_ends():
    rig = Rig([], Says())
    rig.microphone.fails_to_start = [DeviceError("away")] * 100
    with rig:
        rig.until(lambda: rig.microphone.starts)
        assert rig.line.push() == "listening"
        while rig.line.report()["mode"] != "idle":
            rig.clock.advance_ms(100)
            rig.line._stop.wait(0.005)
    assert [request.outcome for request in rig.requests] == ["silent"]


def test_keys_from_many_threads_open_one_window():
    with scripted(Says(), quiet(2)) as rig:
        threads = [threading.Thread(target=rig.line.push) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rig.play_out()
    assert rig.sounds.count("open") == len(rig.requests)
    assert {request.outcome for request in rig.requests} == {"silent"}


def test_a_typed_search_takes_the_same_way():
    with scripted(Says(), quiet(1)) as rig:
        assert rig.line.ask("grease") == Found(("A742",))
        rig.line.choose("A742")
        rig.until(lambda: rig.requests)
    assert (rig.requests[0].source, rig.requests[0].choice) == ("typed", "A742")


def test_sound_is_kept_only_where_somebody_keeps_it():
    kept = []
    keep = lambda utterance: kept.append(utterance) or "clips/one.wav"  # noqa: E731
    with scripted(Says("reject"), quiet(1), WORD, quiet(1), "push", WORD, quiet(3), keep_audio=keep) as rig:
        rig.play_out()
    assert len(kept) == 1  # not what was said outside the window
    assert rig.requests[0].audio == "clips/one.wav"


def test_the_line_does_not_hear_its_own_sounds():
    says = Says("reject")
    with scripted(says, quiet(1), "push", WORD[:6000], quiet(0.6), WORD, quiet(3), deaf_ms=400) as rig:
        rig.play_out()
    assert len(says.heard) == 1  # what came with the sound is not heard, what came after it is


def test_sound_without_an_end_is_told():
    cutter = VoiceActivity(VoiceActivitySpec())
    tone = [WORD] * 110
    with scripted(Says(), quiet(1), *tone, cutter=cutter) as rig:
        rig.until(rig.microphone.done.is_set)
        assert cutter.is_latched, cutter.report()
        health = rig.line.health()
    assert health.state is State.DEGRADED and "without an end" in health.detail


def test_stop_is_safe_twice_and_before_start():
    rig = Rig([], Says())
    rig.line.stop()
    with rig:
        assert rig.line.health().state is State.OK
    rig.line.stop()
    assert rig.line.health().state is State.STOPPED


def test_report_is_json():
    import json

    with scripted(Says("reject"), quiet(1), "push", WORD, quiet(3)) as rig:
        rig.play_out()
        document = json.loads(json.dumps(rig.line.report()))
    assert document["requests"] == 1 and document["recent"][0]["command"] == "reject"
    assert document["level_dbfs"] <= 0


# -- with the shipped bundle --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle():
    return keyword_bundle()


@pytest.fixture(scope="module")
def model(bundle):
    return open_keyword_model(bundle)


def hearing(model, *script, **parts):
    rig = Rig([], None)
    spec = VoiceActivitySpec(
        padding_ms=model.spec.pad_ms, hangover_ms=model.spec.pad_ms, target_dbfs=model.spec.loudness_dbfs
    )
    recognise = InOrder(KeywordRecogniser(model), [], rig.clock)
    return scripted(recognise, *script, cutter=VoiceActivity(spec), **parts)


@pytest.mark.parametrize(("word", "command"), [("reject", "reject"), ("accept", "accept"), ("stop_line", "stop line")])
def test_a_spoken_command_is_carried_out(bundle, model, word, command):
    with hearing(model, quiet(1), "push", golden(bundle, word), quiet(3)) as rig:
        rig.play_out()
        assert rig.line.word_to_event.summary()["max"] <= 600  # of the sound's time: what the cutting takes
    assert [act.command.value for act in rig.acts] == [command]
    assert rig.requests[0].origin == bundle.label


def test_a_spelled_code_finds_its_part(bundle, model):
    gap, edge = quiet(0.1), slice(4000, -4000)
    spoken = np.concatenate(
        [part for word in ("alpha", "seven", "seven") for part in (golden(bundle, word)[edge], gap)]
    )
    with hearing(model, quiet(1), "push", quiet(0.2), spoken, quiet(1)) as rig:
        rig.until(lambda: rig.line.report()["mode"] == "shown")
        assert (rig.line.report()["says"], rig.line.report()["shown"]) == ("alpha seven seven", ["A742"])


@pytest.mark.parametrize("sample", ["hey_jarvis_1", "hey_jarvis_2"])
def test_a_real_wake_word_opens_the_window_for_a_real_command(bundle, model, real_data, sample):
    folder = real_data / "audio" / "wake_samples"
    if not folder.is_dir():
        pytest.skip(f"no recordings of the wake word in {folder}")
    called = np.rint(read_sound(folder / f"{sample}.wav", 16_000).pcm * 32767).astype(np.int16)
    script = (quiet(1.5), called, quiet(0.8), golden(bundle, "reject"), quiet(3))
    with hearing(model, *script, wake=open_micro_wake_word(wake_settings("hey_jarvis"))) as rig:
        rig.play_out()
        assert rig.line.report()["wakes"] == 1
    assert [(request.source, request.outcome) for request in rig.requests] == [("wake", "done")]
    assert [act.command for act in rig.acts] == [Command.REJECT]


def test_bursts_are_no_command(model):
    with hearing(model, quiet(1), "push", WORD, quiet(4)) as rig:
        rig.play_out()
    assert rig.acts == []
