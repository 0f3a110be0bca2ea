"""Listening to the machine: patience before advice, two limits, and a dead microphone that costs nothing else."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.config.schema import SoundConfig
from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import AudioInput, Kind
from edge_runtime.core.messages import AudioChunk
from edge_runtime.features.mel import log_mel
from edge_runtime.flow.components import Health, State
from edge_runtime.inference.sound_memory import RANGE, mean_rows
from edge_runtime.learning.autoencoder_tflite import int8_tflite
from edge_runtime.learning.sound_fit import fit_sound
from edge_runtime.learning.sound_rows import MEL, ROW_HOPS, rows_within
from edge_runtime.lines.sound_line import SoundEar, SoundLine, SoundWatch
from edge_runtime.modelstore.bundle import MEMORY, MODEL, seal_bundle
from edge_runtime.predictors.sound import open_sound_model
from tests.support.waiting import until

RATE = 16_000
CFG = SoundConfig(model="fan", smooth_s=2.0, alarm_after_s=5.0, normal_after_s=5.0, refractory_s=60.0)


def hum(seed, seconds, whine=0.0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    sound = 0.02 * np.sin(2 * np.pi * 50 * t) + 0.004 * rng.normal(size=len(t)) + whine * np.sin(2 * np.pi * 2500 * t)
    return np.rint(sound * 32768).astype(np.int16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    rows = [mean_rows(log_mel(hum(seed, 6.2), RATE, MEL), ROW_HOPS) for seed in range(6)]
    lesson = fit_sound(rows, row_hops=ROW_HOPS, window_rows=rows_within(3.0))
    (folder / MODEL).write_bytes(int8_tflite(lesson.network, lesson.units, RANGE))
    lesson.memory.save(folder / MEMORY)
    table = {"name": "fan", "version": "1", "kind": Kind.SOUND_ANOMALY, "licence": "own",
             "audio": AudioInput(mel=MEL).model_dump(exclude_none=True)}  # fmt: skip
    return open_sound_model(seal_bundle(folder, table))


def chunks(pcm, start_ns=SECOND, rate=RATE, samples=480):
    for seq, at in enumerate(range(0, len(pcm) - samples + 1, samples)):
        part = pcm[at : at + samples].copy()
        part.flags.writeable = False
        yield AudioChunk(seq, start_ns + at * SECOND // rate, rate, part)


def heard(ear, pcm, start_ns=SECOND):
    return [event for chunk in chunks(pcm, start_ns) for event in ear(chunk)]


def told(cfg, scores, start_s=100):
    watch = SoundWatch(cfg, "fan@1")
    return [(event.kind, event.at_ns // SECOND) for at, score in enumerate(scores, start_s)
            for event in watch(score, at * SECOND)]  # fmt: skip


def test_a_lasting_whine_gives_one_advice_and_its_end_is_told(model):
    ear = SoundEar(model, CFG)
    sound = np.concatenate([hum(20, 10), hum(21, 25, whine=0.01), hum(22, 25)])
    events = heard(ear, sound)
    assert [event.kind for event in events] == ["sound.abnormal", "sound.normal"]
    began_s = (events[0].at_ns - SECOND) / SECOND
    assert 10 + CFG.alarm_after_s <= began_s <= 22
    assert events[0].detail["model"] == "fan@1"
    assert events[0].detail["score"] >= 0.5
    assert 55 <= ear.report()["judged"] <= 58  # each second once the window is full
    assert not ear.asks_reject


def test_a_short_clank_is_no_advice(model):
    ear = SoundEar(model, CFG)
    assert heard(ear, np.concatenate([hum(20, 10), hum(21, 1.0, whine=0.05), hum(22, 15)])) == []


def test_parts_are_only_asked_to_be_rejected_where_the_station_says_so(model):
    ear = SoundEar(model, CFG.model_copy(update={"reject": True}))
    heard(ear, hum(20, 8))
    assert not ear.asks_reject
    heard(ear, hum(21, 20, whine=0.01), start_ns=9 * SECOND)
    assert ear.asks_reject


def test_digital_silence_is_trouble_and_never_normal(model):
    ear = SoundEar(model, CFG)
    heard(ear, hum(20, 6))
    judged = ear.counts["judged"]
    heard(ear, np.zeros(RATE * 5, np.int16), start_ns=7 * SECOND)
    assert "digital silence" in ear.trouble
    assert ear.counts["judged"] <= judged + 1  # the second that was half sound, half silence
    assert ear.counts["invalid_blocks"] >= 4
    heard(ear, hum(21, 6), start_ns=12 * SECOND)
    assert ear.trouble == ""


NOTHING = {
    "digital silence": np.zeros(RATE * 20, np.int16),
    "one value, -300": np.full(RATE * 20, -300, np.int16),
    "last bit": np.random.default_rng(1).integers(-1, 2, RATE * 20).astype(np.int16),
    "the same 30 ms": np.tile(hum(1, 0.03), 666),
    "clipped": np.clip(hum(1, 20, whine=0.02).astype(np.float64) * 100, -32768, 32767).astype(np.int16),
}


@pytest.mark.parametrize("says", NOTHING)
def test_sound_that_shows_nothing_is_told_once_and_is_neither_normal_nor_abnormal(model, says):
    ear = SoundEar(model, CFG.model_copy(update={"reject": True}))
    heard(ear, hum(20, 6))
    lost = heard(ear, NOTHING[says], start_ns=7 * SECOND)
    assert [event.kind for event in lost] == ["sound.invalid"]
    for why in (lost[0].detail["why"], ear.trouble):
        assert why.startswith("invalid_sound: ") and says in why
    assert (ear.scores, ear.watch.smoothed, ear.asks_reject) == ({}, None, False)
    back = heard(ear, hum(21, 6), start_ns=27 * SECOND)
    assert [event.kind for event in back] == ["sound.valid"]
    assert not ear.is_invalid and ear.scores


@pytest.mark.parametrize("says", NOTHING)
def test_an_alarm_in_force_is_not_ended_by_a_dead_microphone(model, says):
    ear = SoundEar(model, CFG.model_copy(update={"reject": True}))
    heard(ear, np.concatenate([hum(20, 6), hum(21, 14, whine=0.01)]))
    assert ear.asks_reject
    heard(ear, NOTHING[says], start_ns=21 * SECOND)
    assert ear.asks_reject
    back = heard(ear, np.concatenate([hum(seed, 6) for seed in range(5)]), start_ns=41 * SECOND)
    assert [event.kind for event in back] == ["sound.valid", "sound.normal"]
    assert not ear.asks_reject


def test_claps_beside_the_machine_are_sound(model):
    ear = SoundEar(model, CFG)
    sound = hum(20, 12).astype(np.float64)
    for at in range(RATE, len(sound), RATE // 2):
        sound[at : at + 100] += 60_000 * np.exp(-np.arange(100) / 30)
    events = heard(ear, np.clip(sound, -32768, 32767).astype(np.int16))
    assert "sound.invalid" not in {event.kind for event in events}
    assert ear.counts["judged"] and not ear.trouble


def test_sound_after_a_hole_does_not_join_on_to_what_was(model):
    ear = SoundEar(model, CFG)
    heard(ear, hum(20, 6))
    heard(ear, hum(21, 2), start_ns=60 * SECOND)
    assert ear.counts["breaks"] == 1
    assert ear.watch.smoothed is None


def test_between_the_limits_nothing_changes():
    cfg = CFG.model_copy(update={"smooth_s": 0.0})
    assert told(cfg, [0.45] * 50) == []
    assert told(cfg, [0.9] * 10 + [0.45] * 50) == [("sound.abnormal", 105)]
    assert told(cfg, [0.9] * 10 + [0.45] * 50 + [0.3] * 9) == [("sound.abnormal", 105), ("sound.normal", 165)]


def test_after_an_alarm_the_next_one_waits():
    cfg = CFG.model_copy(update={"smooth_s": 0.0})
    scores = [0.9] * 10 + [0.1] * 10 + [0.9] * 100
    assert told(cfg, scores) == [("sound.abnormal", 105), ("sound.normal", 115), ("sound.abnormal", 175)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=120), st.floats(0, 30))
def test_events_alternate_and_never_come_sooner_than_patience(scores, smooth_s):
    cfg = CFG.model_copy(update={"smooth_s": smooth_s})
    events = told(cfg, scores)
    assert [kind for kind, _ in events] == ["sound.abnormal", "sound.normal"] * (len(events) // 2) + [
        "sound.abnormal"
    ] * (len(events) % 2)
    times = [100 - 1, *(at for _, at in events)]
    assert all(later - earlier >= 5 for earlier, later in pairwise(times))
    starts = [at for kind, at in events if kind == "sound.abnormal"]
    ends = [at for kind, at in events if kind == "sound.normal"]
    assert all(start - end >= CFG.refractory_s for end, start in zip(ends, starts[1:], strict=False))


class Fed:
    """A microphone that hands out what it was given, then is lost for ever."""

    name = "fed"

    def __init__(self, pcm):
        self._chunks = iter(list(chunks(pcm)))
        self.is_open = False
        self.lost = 0

    def start(self):
        self.is_open = True

    def stop(self):
        self.is_open = False

    def health(self):
        return Health(State.FAILED, "unplugged") if self.lost else Health(State.OK)

    def report(self):
        return {"driver": "fed"}

    def read(self, timeout_s):
        try:
            return next(self._chunks)
        except StopIteration:
            self.lost += 1
            raise MicrophoneLost("unplugged") from None


class Tap:
    def __init__(self):
        self.events = []

    def happened(self, event):
        self.events.append(event)


def test_a_line_tells_its_taps_and_a_dead_microphone_only_degrades(model):
    microphone, tap = Fed(np.concatenate([hum(20, 8), hum(21, 25, whine=0.01)])), Tap()
    line = SoundLine(microphone=microphone, open_model=lambda: model, cfg=CFG, taps=[tap], clock=monotonic_ns)
    assert line.health().state is State.STOPPED
    line.start()
    try:
        until(lambda: microphone.lost > 0)
        assert [event.kind for event in tap.events] == ["sound.abnormal"]
        assert line.health().state is State.DEGRADED
        assert "unplugged" in line.health().detail
        assert line.report()["is_abnormal"] is True
    finally:
        line.stop()
        line.stop()
    assert not microphone.is_open


def test_a_model_that_cannot_be_loaded_degrades_and_is_tried_again(model):
    attempts = []

    def flaky():
        attempts.append(1)
        if len(attempts) < 2:
            raise ModelError("no model 'fan'")
        return model

    microphone = Fed(hum(20, 8))
    line = SoundLine(microphone=microphone, open_model=flaky, cfg=CFG, taps=[], clock=monotonic_ns)
    line.start()
    try:
        until(lambda: "no model 'fan'" in line.health().detail or len(attempts) > 1)
        until(lambda: microphone.lost > 0)
        assert line.report()["judged"] >= 5
    finally:
        line.stop()
