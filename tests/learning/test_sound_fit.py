"""Rows of sound to a memory and an int8 network: what is learnt, what is refused, and that a fault stands out."""

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.mahalanobis import window_means
from edge_runtime.inference.sound_memory import RANGE, SCORERS, SoundMemory
from edge_runtime.learning.autoencoder import run_network, train_autoencoder
from edge_runtime.learning.autoencoder_tflite import int8_tflite
from edge_runtime.learning.sound_fit import fit_sound, rank_auc

BANDS, ROWS = 24, 20


def recording(seed, raised=0.0, rows=40):
    """Noise of 0.3 in each band, and a hall whose loudness drifts and is heard most in the high bands."""
    rng = np.random.default_rng(seed)
    hall = rng.normal(0, 1) + 0.1 * rng.normal(size=(rows, 1))
    sound = -8 + hall * np.linspace(0, 1.5, BANDS) + 0.3 * rng.normal(size=(rows, BANDS))
    sound[:, 2:5] += raised
    return sound.astype(np.float32)


@pytest.fixture(scope="module")
def lesson():
    return fit_sound([recording(seed) for seed in range(10)], row_hops=8, window_rows=ROWS)


def judge(lesson, rows, rebuild=None):
    units = lesson.memory.in_spreads(rows)
    rebuilt = rebuild(units) if rebuild else run_network(lesson.network, units)[-1]
    return lesson.memory.judge(units, rebuilt, 4, ROWS // 2)


def test_a_lasting_change_in_steady_bands_is_found_and_a_loud_hall_is_not(lesson):
    normal = [judge(lesson, recording(100 + seed)).score.max() for seed in range(12)]
    abnormal = [judge(lesson, recording(200 + seed, raised=0.7)).score.max() for seed in range(12)]
    assert rank_auc(normal, abnormal) > 0.97
    assert np.mean(np.array(abnormal) >= 0.5) > 0.9
    found = judge(lesson, recording(300, raised=0.7))
    assert 2 <= found.distances.mean(axis=0).argmax() <= 4


def test_the_limit_is_set_by_held_back_normal_sound_and_promises_no_more_than_it_can(lesson):
    assert len(lesson.memory.held_back) == lesson.windows == 20
    assert lesson.over == 0
    assert lesson.memory.over_alarm == pytest.approx(1 / 21)
    low, high = lesson.memory.interval
    assert low < high <= 0.75


def test_the_same_sound_teaches_the_same_bytes(lesson, tmp_path):
    again = fit_sound([recording(seed) for seed in range(10)], row_hops=8, window_rows=ROWS)
    for number, one in enumerate((lesson, again)):
        one.memory.save(tmp_path / f"{number}.npz")
        (tmp_path / f"{number}.tflite").write_bytes(int8_tflite(one.network, one.units, RANGE))
    for kind in ("npz", "tflite"):
        assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes()


def test_what_is_saved_comes_back(lesson, tmp_path):
    lesson.memory.save(tmp_path / "memory.npz")
    loaded = SoundMemory.load(tmp_path / "memory.npz")
    rows = recording(7)
    before, after = judge(lesson, rows), judge(replace(lesson, memory=loaded), rows)
    assert np.array_equal(before.score, after.score)
    assert set(after.by_scorer) == set(SCORERS)


def test_the_int8_file_says_what_the_network_says(lesson, tmp_path):
    (tmp_path / "a.tflite").write_bytes(int8_tflite(lesson.network, lesson.units, RANGE))
    engine = Engine(tmp_path / "a.tflite")
    source, target = engine.inputs[0], engine.outputs[0]
    assert (str(source.dtype), source.shape, str(target.dtype)) == ("int8", (1, BANDS), "int8")

    def rebuild(units):
        return np.concatenate([target.dequantise(engine.invoke(row[None])[0]) for row in source.quantise(units)])

    assert np.abs(rebuild(lesson.units) - run_network(lesson.network, lesson.units)[-1]).max() < 0.25
    for seed in range(5):
        rows = recording(400 + seed, raised=0.2 * seed)
        assert np.abs(judge(lesson, rows).score - judge(lesson, rows, rebuild).score).max() < 0.05


def test_the_autoencoder_learns_what_bands_share():
    rng = np.random.default_rng(1)
    shared = (rng.normal(size=(800, 2)) @ rng.normal(size=(2, BANDS))).astype(np.float32)
    shared /= shared.std(axis=0)
    network = train_autoencoder(shared, np.ones(BANDS, np.float32))
    assert np.mean((run_network(network, shared)[-1] - shared) ** 2) < 0.12
    alone = rng.normal(size=(800, BANDS)).astype(np.float32)
    assert np.mean((run_network(network, alone)[-1] - alone) ** 2) > 0.7


def test_window_means_are_means_of_windows():
    rows = np.random.default_rng(2).normal(size=(30, 3)).astype(np.float32)
    means = window_means(rows, 10, 5)
    assert np.allclose(means, [rows[start : start + 10].mean(axis=0) for start in range(0, 21, 5)], atol=1e-6)
    assert window_means(rows, 31, 1).shape == (0, 3)


def test_ranks_count_ties_as_half():
    assert rank_auc([0, 1], [1, 2]) == 0.875
    assert rank_auc([1, 2], [0]) == 0.0


def test_one_long_recording_is_judged_in_stretches():
    lesson = fit_sound([recording(1, rows=200)], row_hops=8, window_rows=ROWS)
    assert (lesson.windows, lesson.folds) == (10, 8)


@pytest.mark.parametrize(
    ("recordings", "over_alarm", "says"),
    [
        ([recording(1, rows=119)], 0.01, "5 whole windows"),
        ([], 0.01, "0 whole windows"),
        ([np.full((400, BANDS), np.nan, np.float32)], 0.01, "finite"),
        ([recording(1, rows=400)], 0.0, "share of alarms"),
    ],
)
def test_sound_that_cannot_teach_is_refused(recordings, over_alarm, says):
    with pytest.raises(ModelError, match=says):
        fit_sound(recordings, row_hops=8, window_rows=ROWS, over_alarm=over_alarm)


def test_rows_that_do_not_fit_are_refused(lesson):
    for rows, says in ((recording(1)[:, :5], "taught with"), (recording(1)[:3], "at least 10")):
        with pytest.raises((ModelError, ValueError), match=f"{says}|broadcast"):
            judge(lesson, rows)
    with pytest.raises(ModelError, match="no numbers"):
        lesson.memory.judge(np.full((40, BANDS), np.nan, np.float32), np.zeros((40, BANDS), np.float32), 4, 10)


def test_a_damaged_memory_is_a_model_error(lesson, tmp_path):
    path = tmp_path / "memory.npz"
    lesson.memory.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(60):
        broken = bytearray(whole)
        broken[rng.integers(0, len(whole))] ^= 1 << rng.integers(0, 8)
        path.write_bytes(broken[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else broken)
        try:
            SoundMemory.load(path)
        except ModelError as err:
            assert str(path) in str(err)
    with pytest.raises(ModelError, match="no such file"):
        SoundMemory.load(tmp_path / "absent.npz")
