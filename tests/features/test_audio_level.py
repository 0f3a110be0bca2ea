"""How loud a chunk is, and bringing speech to a set loudness."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_runtime.features.audio_level import amplify, clipped_share, measure, peak_dbfs, rms_dbfs, speech_gain_db

RATE_HZ = 16_000
chunks = arrays.arrays(np.int16, st.integers(1, 700))


def sine(amplitude: float, seconds: float = 0.1) -> np.ndarray:
    t = np.arange(round(RATE_HZ * seconds)) / RATE_HZ
    return np.rint(amplitude * 32767 * np.sin(2 * np.pi * 500 * t)).astype(np.int16)


def test_full_scale_is_a_square_wave():
    assert rms_dbfs(np.tile(np.array([-32768, 32767], np.int16), 100)) == pytest.approx(0.0, abs=0.001)
    assert rms_dbfs(sine(1.0)) == pytest.approx(-3.01, abs=0.01)
    assert peak_dbfs(sine(0.1)) == pytest.approx(-20.0, abs=0.01)
    assert rms_dbfs(np.zeros(480, np.int16)) == peak_dbfs(np.zeros(480, np.int16)) == -math.inf


def test_clipping_is_counted_at_both_ends():
    assert clipped_share(np.array([0, 32767, -32768, -32767, 32766, 1, 2, 3], np.int16)) == 3 / 8
    assert clipped_share(sine(0.99)) == 0.0


def test_empty_chunk_is_refused():
    with pytest.raises(ValueError, match="empty"):
        measure(np.empty(0, np.int16))


@given(chunks)
def test_peak_is_never_under_the_mean_nor_over_full_scale(pcm):
    level = measure(pcm)
    assert level.rms_dbfs <= level.peak_dbfs + 1e-9 <= 1e-8
    assert 0.0 <= level.clipped_share <= 1.0


@given(chunks, st.floats(-30, -10))
def test_speech_is_never_brought_to_clip(pcm, target_dbfs):
    gain_db = speech_gain_db(pcm, RATE_HZ, target_dbfs)
    louder = amplify(pcm, gain_db)
    assert peak_dbfs(louder) <= -0.9 or gain_db <= 0.0
    assert not louder.flags.writeable


@pytest.mark.parametrize("loudness", [0.5, 0.05, 0.005])
@pytest.mark.parametrize("padding_s", [0.0, 0.3, 1.0])
def test_speech_comes_out_equally_loud_whatever_silence_surrounds_it(loudness, padding_s):
    silence = np.zeros(round(padding_s * RATE_HZ), np.int16)
    pcm = np.concatenate([silence, sine(loudness, 0.5), silence])
    gain_db = speech_gain_db(pcm, RATE_HZ, -20.0)
    assert rms_dbfs(amplify(sine(loudness, 0.5), gain_db)) == pytest.approx(-20.0, abs=0.5)


def test_silence_stays_silence():
    assert speech_gain_db(np.zeros(480, np.int16), RATE_HZ, -20.0) == 0.0
