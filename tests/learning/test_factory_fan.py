"""A real industrial fan, normal and failing, where its recordings are."""

from itertools import combinations

import numpy as np
import pytest

from edge_runtime.learning.autoencoder import run_network
from edge_runtime.learning.sound_files import read_recording
from edge_runtime.learning.sound_fit import fit_sound, rank_auc
from edge_runtime.learning.sound_rows import ROW_HOPS, rows_within


@pytest.fixture(scope="module")
def recordings(real_data):
    folder = real_data / "audio" / "factory_fan"
    if not folder.is_dir():
        pytest.skip("no recordings of a factory fan in the folder of real data")
    pytest.importorskip("soundfile")
    normal, abnormal = ([read_recording(path).rows for path in sorted(folder.glob(f"{name}_*.flac"))]
                        for name in ("normal", "abnormal"))  # fmt: skip
    return normal, abnormal


def test_a_failing_fan_is_told_from_a_normal_one_never_heard_before(recordings):
    """Each normal recording is left out once; the limit comes from the seven others."""
    normal, abnormal = recordings
    window_rows = rows_within(10.0)
    aucs, over, found = [], [], []
    for taught in combinations(range(len(normal)), len(normal) - 1):
        lesson = fit_sound([normal[at] for at in taught], row_hops=ROW_HOPS, window_rows=window_rows)

        def score(rows, lesson=lesson):
            units = lesson.memory.in_spreads(rows)
            return lesson.memory.judge(units, run_network(lesson.network, units)[-1], 4, 19).score.max()

        unheard = [score(rows) for at, rows in enumerate(normal) if at not in taught]
        bad = [score(rows) for rows in abnormal]
        aucs.append(rank_auc(unheard, bad))
        over += [one >= 0.5 for one in unheard]
        found += [one >= 0.5 for one in bad]
    assert np.mean(aucs) >= 0.95
    assert np.mean(over) <= 0.25
    assert np.mean(found) >= 0.5
