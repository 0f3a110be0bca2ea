"""From recordings to a model in the store that `predict` uses at once: a synthetic fan, and a real one where it is."""

import json
import wave

import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.cli.data_cmds import data
from edge_runtime.cli.main import Session
from edge_runtime.cli.predict_cmd import predict
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Kind
from edge_runtime.learning.sound import learn_sound
from edge_runtime.learning.sound_bundle import check_golden_sound
from edge_runtime.learning.sound_files import read_recording
from edge_runtime.media.sound_file import SoundError, resample
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.sound import RowStream, open_sound_model

RATE = 16_000
WINDOW_S = 3.0


def fan(seed, seconds=4.0, bearing=0.0, gain=1.0):
    """Harmonics of a blade at 47 Hz and air noise; a worn bearing adds bursts at 3 kHz, 11 times a second."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    sound = sum(0.02 / k * np.sin(2 * np.pi * 47 * k * t + rng.uniform(0, 6)) for k in range(1, 9))
    sound = sound + 0.004 * rng.normal(1.0, 0.1) * rng.normal(size=len(t))
    bursts = np.exp(-200 * (t % (1 / 11))) * np.sin(2 * np.pi * 3000 * t)
    return (gain * (sound + bearing * bursts)).astype(np.float32)


def save(path, pcm, rate=RATE, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        frames = (pcm * 32767).clip(-32768, 32767).astype("<i2")
        frames = frames if pcm.ndim == 2 else np.repeat(frames[:, None], channels, axis=1)
        file.setnchannels(frames.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(frames.tobytes())


@pytest.fixture(scope="module")
def shift(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift")
    for seed in range(10):
        save(folder / "normal" / f"{seed:02}.wav", fan(seed), channels=1 + seed % 2)
    for seed in range(3):
        save(folder / "abnormal" / f"{seed:02}.wav", fan(100 + seed, bearing=0.02))
    (folder / "normal" / "broken.wav").write_bytes(b"RIFF....WAVE")
    save(folder / "normal" / "dead.wav", np.zeros(RATE * 4, np.float32))
    save(folder / "normal" / "loud.wav", fan(50, gain=60.0))
    (folder / "normal" / "notes.txt").write_text("not a sound")
    return folder


@pytest.fixture(scope="module")
def learnt(shift, tmp_path_factory):
    store = ModelStore(tmp_path_factory.mktemp("store"), shipped=[])
    seen = []
    report = learn_sound(shift, "fan", store, EdgeConfig(), window_s=WINDOW_S, progress=lambda *step: seen.append(step))
    return store, report, seen


@pytest.fixture(scope="module")
def model(learnt):
    return open_sound_model(learnt[0].resolve("fan"))


def session(store):
    return Session(None, [f"model.store={json.dumps(str(store.own))}"])


def run(command, store, *args):
    result = CliRunner().invoke(command, [str(arg) for arg in args], obj=session(store))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_worn_bearing_is_heard_and_a_normal_fan_is_not(model):
    assert max(model(fan(200 + seed), RATE).score for seed in range(4)) < 0.5
    worn = [model(fan(300 + seed, bearing=0.02), RATE) for seed in range(4)]
    assert min(one.score for one in worn) > 0.9
    low_hz, high_hz = model.frequencies(worn[0].regions[0])
    assert low_hz < 3000 < high_hz
    assert set(worn[0].scores) == {"abnormal", "mahalanobis", "autoencoder"}


def test_the_report_says_what_was_learnt_and_what_was_left_out(learnt):
    _, report, seen = learnt
    assert (report.recordings, report.windows, report.model) == (10, 10, "fan@1")
    assert sorted(line.partition(": ")[0].rpartition("/")[2] for line in report.skipped) == [
        "broken.wav", "dead.wav", "loud.wav",
    ]  # fmt: skip
    assert report.evaluation is not None
    assert report.evaluation["auc"] == 1.0
    assert report.evaluation["found"] == 3
    assert {what for what, _, _ in seen} == {"reading", "learning"}
    assert json.loads(json.dumps(report.as_json()))["over_alarm"] == pytest.approx(1 / 11, abs=1e-4)


def test_the_bundle_is_whole_and_says_what_it_is(learnt):
    bundle = learnt[0].resolve("fan")
    manifest = bundle.manifest
    assert manifest.kind is Kind.SOUND_ANOMALY
    assert manifest.audio is not None
    assert (manifest.audio.rate_hz, manifest.audio.front_end) == (RATE, "log_mel")
    assert "golden/normal.wav" in manifest.files
    assert check_golden_sound(bundle) == ""
    assert "never heard a fault" in (bundle.folder / "CARD.md").read_text()
    assert sum(manifest.reference.score_histogram) == pytest.approx(1.0, abs=1e-3)


def test_the_same_recordings_make_the_next_version_with_the_same_content(learnt, shift):
    store, report, _ = learnt
    again = learn_sound(shift, "fan", store, EdgeConfig(), window_s=WINDOW_S)
    assert again.model == "fan@2"
    first, second = (store.resolve(label).manifest for label in (report.model, again.model))
    for name in ("memory.npz", "model.tflite", "golden/normal.wav"):
        assert first.files[name] == second.files[name]


def test_another_rate_and_a_stream_of_chunks_say_the_same(model):
    for bearing in (0.0, 0.02):
        sound = fan(400, seconds=5.0, bearing=bearing)
        whole = model(sound, RATE)
        stream = RowStream(model)
        rows = np.concatenate([stream(part) for part in np.array_split(sound, 167)])
        assert model.judge(rows).score == pytest.approx(whole.score, abs=1e-3)
        assert model(resample(sound, RATE, 48_000), 48_000).score == pytest.approx(whole.score, abs=0.05)


def test_a_span_that_stood_out_in_a_long_recording_is_told_in_time(model):
    sound = np.concatenate([fan(1, 12.0), fan(2, 6.0, bearing=0.03), fan(3, 12.0)])
    prediction = model(sound, RATE)
    assert prediction.score > 0.9
    assert len(prediction.regions) == 1
    start_s, end_s = prediction.regions[0].x * 30, (prediction.regions[0].x + prediction.regions[0].w) * 30
    assert 12 - WINDOW_S <= start_s <= 12.5
    assert 17.5 <= end_s <= 18 + WINDOW_S


@pytest.mark.parametrize(
    ("pcm", "says"),
    [
        (np.zeros(RATE * 4, np.int16), "digital silence"),
        (np.full(RATE * 4, 77, np.int16), "one value, 77"),
        (np.empty(0, np.int16), "no sound at all"),
        (np.random.default_rng(1).integers(-1, 2, RATE * 4).astype(np.int16), "last bit"),
        (np.tile(fan(1, 0.03), 134), "the same 30 ms again and again"),
        (np.clip(fan(1, gain=100.0), -1, 1), "clipped"),
        (np.concatenate([fan(1, 6.0), np.zeros(RATE * 3, np.float32), fan(2, 6.0)]), "digital silence.*from 6 to 9 s"),
        (fan(1, 1.0), "1.0 s of sound, at least 1"),
    ],
)
def test_sound_that_says_nothing_is_no_normal_sound(model, pcm, says):
    with pytest.raises(ModelError, match=says):
        model(pcm, RATE)


def test_a_recording_that_says_nothing_has_no_verdict_in_predict(learnt, tmp_path):
    store, report, _ = learnt
    rng = np.random.default_rng(1)
    good, dead = fan(1, 8.0), np.zeros(RATE * 8, np.float32)
    save(tmp_path / "zeros.wav", dead)
    save(tmp_path / "dither.wav", (1.1 * rng.integers(-1, 2, RATE * 8) / 32767).astype(np.float32))
    save(tmp_path / "overdriven.wav", np.clip(good * 100, -1, 1))
    save(tmp_path / "left-dead.wav", np.stack([dead, good], axis=1))
    save(tmp_path / "both.wav", np.stack([good, fan(2, 8.0)], axis=1))
    save(tmp_path / "none.wav", np.stack([dead, dead], axis=1))
    files = [tmp_path / f"{name}.wav" for name in ("zeros", "dither", "overdriven", "none", "left-dead", "both")]
    result = run(predict, store, *files, "--model", report.model, "--json")
    *nothing, left_dead, both = json.loads(result.stdout)
    assert result.exit_code == 1
    for entry in nothing:
        assert (entry["verdict"], entry["score"]) == (None, None)
        assert entry["error"].startswith("invalid_sound: ")
    assert left_dead["score"] == pytest.approx(both["score"], abs=0.01) and left_dead["verdict"]


def test_predict_judges_recordings_with_every_promised_key(learnt, shift):
    files = [shift / "normal" / "03.wav", shift / "abnormal" / "01.wav", shift / "normal" / "dead.wav"]
    result = run(predict, learnt[0], "--model", "fan", "--json", *files, shift / "normal" / "notes.txt")
    assert result.exit_code == 1
    normal, abnormal, dead, text = json.loads(result.stdout)
    for entry in (normal, abnormal, dead, text):
        assert {"file", "model", "verdict", "score", "scores", "regions", "timings_ms"} <= set(entry)
    assert (normal["verdict"], normal["regions"]) == ("accept", [])
    assert abnormal["verdict"] == "reject"
    assert set(abnormal["regions"][0]) == {"start_s", "end_s", "low_hz", "high_hz", "score", "label"}
    assert "digital silence" in dead["error"]
    assert "not a sound file" in text["error"]


def test_the_command_learns_from_a_flat_folder_and_leaves_abnormal_names_out(tmp_path):
    for seed in range(7):
        save(tmp_path / "flat" / f"normal_{seed}.wav", fan(seed))
    save(tmp_path / "flat" / "anomaly_0.wav", fan(100, bearing=0.02))
    store = ModelStore(tmp_path / "store", shipped=[])
    result = run(data, store, "learn-sound", tmp_path / "flat", "--name", "fan", "--window-s", "3", "--json")
    assert result.exit_code == 0
    about = json.loads(result.stdout)
    assert (about["recordings"], about["evaluation"]["abnormal"]) == (7, 1)
    assert store.resolve("fan").label == about["model"]


@pytest.mark.parametrize(
    ("files", "name", "says"),
    [
        ({}, "fan", "no recordings"),
        ({"a.wav": fan(1, 12.0)}, "fan", "at least 6 are needed; record more"),
        ({"a.wav": np.zeros(RATE, np.float32)}, "fan", "none of 1 recordings.*digital silence"),
        ({"a.wav": fan(1, 3.0, gain=100.0)}, "fan", "invalid_sound: clipped .* turn the microphone down"),
        ({"a.wav": np.tile(fan(1, 0.03), 400)}, "fan", "invalid_sound: the same 30 ms again and again"),
        ({"a.wav": fan(1, 9.0) * (np.arange(RATE * 9) < RATE * 5)}, "fan", "digital silence.*from 5 to 9 s"),
        ({"a.wav": fan(1)}, "Fan 1", "no name for a model"),
    ],
)
def test_what_cannot_teach_is_refused_with_the_fix(tmp_path, files, name, says):
    for file, pcm in files.items():
        save(tmp_path / "in" / file, pcm)
    (tmp_path / "in").mkdir(exist_ok=True)
    with pytest.raises(UsageError, match=says):
        learn_sound(tmp_path / "in", name, ModelStore(tmp_path / "store", shipped=[]), window_s=WINDOW_S)
    assert not (tmp_path / "store").exists()


def test_a_name_of_another_kind_of_model_is_refused(make_bundle, tmp_path, shift):
    make_bundle("heatmap", name="scratch", folder=tmp_path / "store" / "scratch" / "1")
    with pytest.raises(UsageError, match="kind heatmap already"):
        learn_sound(shift, "scratch", ModelStore(tmp_path / "store", shipped=[]))


def test_a_recording_tells_its_level(tmp_path):
    save(tmp_path / "a.wav", (0.1 * np.sin(np.arange(RATE) * 0.3)).astype(np.float32))
    assert read_recording(tmp_path / "a.wav").level_dbfs == pytest.approx(-23.0, abs=0.1)
    save(tmp_path / "b.wav", fan(1, 0.1))
    with pytest.raises(SoundError, match="shorter than"):
        read_recording(tmp_path / "b.wav")
