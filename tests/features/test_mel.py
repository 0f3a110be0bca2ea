"""Log-mel: tones land in their band, levels are what the docstring says, and chunks make no difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import MelSpec
from edge_runtime.features.mel import ROWS_AT_ONCE, MelStream, log_mel, mel_bank, mel_centres_hz

RATE = 16_000
SPEC = MelSpec()
FINE = MelSpec(window_ms=64, hop_ms=32, bands=128, low_hz=0, high_hz=8000)


def tone(hz, seconds=0.5, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def noise():
    return (np.random.default_rng(3).normal(0, 0.1, RATE) * 32768).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("hz", [100, 440, 1000, 3000, 7000])
def test_a_tone_is_loudest_in_the_band_around_it(hz):
    band = log_mel(tone(hz), RATE, SPEC).mean(axis=0).argmax()
    centres = mel_centres_hz(SPEC)
    assert abs(band - np.abs(centres - hz).argmin()) <= 1


def test_values_are_the_textbook_ones_computed_slowly(noise):
    """Direct DFT of one frame, triangles sampled finely: no FFT, no closed form."""
    frame = noise[160 : 160 + 400].astype(np.float64) / 32768
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    power = np.abs(turns @ (frame * hann)) ** 2
    mels = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (20, 7600)), 42)
    edges = 700 * (10 ** (mels / 2595) - 1)
    fine_hz = (np.arange(257 * 200) + 0.5) / 200 * 31.25 - 31.25 / 2
    bands = [np.interp(fine_hz, edges[i : i + 3], [0, 1, 0]).reshape(257, 200).mean(axis=1) @ power for i in range(40)]
    assert np.allclose(log_mel(noise, RATE, SPEC)[1], np.log(np.array(bands) + 1e-6), atol=1e-3)


def test_int16_and_float_of_full_scale_one_are_the_same(noise):
    as_float = noise.astype(np.float32) / np.float32(32768)
    assert np.array_equal(log_mel(noise, RATE, SPEC), log_mel(as_float, RATE, SPEC))


def test_twice_as_loud_is_ln_4_more(noise):
    quiet = noise.astype(np.float32) / 65536
    difference = log_mel(2 * quiet, RATE, SPEC) - log_mel(quiet, RATE, SPEC)
    assert np.allclose(difference, np.log(4), atol=0.01)


def test_silence_is_the_floor():
    assert np.allclose(log_mel(np.zeros(RATE, np.int16), RATE, SPEC), np.log(1e-6), atol=1e-4)


@pytest.mark.parametrize(("samples", "rows"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_frames_start_at_the_first_sample_and_are_never_padded(samples, rows):
    assert log_mel(np.zeros(samples, np.int16), RATE, SPEC).shape == (rows, 40)


def test_every_band_hears_something_however_narrow():
    filters = mel_bank(RATE, FINE).filters
    assert filters.shape == (513, 128)
    assert filters.sum(axis=0).min() > 0.3
    assert filters.min() >= 0
    between = (np.arange(513) * RATE / 1024 > 30) & (np.arange(513) * RATE / 1024 < 7700)
    assert np.allclose(filters[between].sum(axis=1), 1.0, atol=0.02)  # triangles overlap to one everywhere


def test_long_sound_in_parts_is_the_same_as_in_one():
    sound = np.random.default_rng(5).normal(0, 0.1, (ROWS_AT_ONCE + 50) * 160).astype(np.float32)
    late = ROWS_AT_ONCE - 3
    assert np.allclose(log_mel(sound, RATE, SPEC)[late : late + 6], log_mel(sound[late * 160 :], RATE, SPEC)[:6])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 900), max_size=12),
    st.sampled_from([SPEC, FINE, MelSpec(window_ms=10, hop_ms=25), MelSpec(window_ms=10, hop_ms=10)]),
)
def test_a_stream_gives_the_rows_of_the_whole(lengths, spec):
    sound = np.random.default_rng(7).normal(0, 3000, sum(lengths)).astype(np.int16)
    stream = MelStream(RATE, spec)
    chunks = np.split(sound, np.cumsum(lengths)[:-1]) if lengths else []
    rows = np.concatenate([np.empty((0, spec.bands), np.float32), *(stream(chunk) for chunk in chunks)])
    assert np.allclose(rows, log_mel(sound, RATE, spec), atol=1e-5)


def test_a_reset_stream_starts_anew(noise):
    stream = MelStream(RATE, SPEC)
    stream(noise[:777])
    stream.reset()
    assert np.allclose(stream(noise), log_mel(noise, RATE, SPEC))


@pytest.mark.parametrize(
    ("rate", "spec", "names"),
    [
        (8000, SPEC, "high_hz 7600"),
        (RATE, MelSpec(low_hz=4000, high_hz=4000), "low_hz"),
        (RATE, MelSpec(hop_ms=0.01), "hop"),
    ],
)
def test_a_spec_that_cannot_be_names_the_key(rate, spec, names):
    with pytest.raises(ModelError, match=names):
        log_mel(np.zeros(RATE, np.int16), rate, spec)


@pytest.mark.parametrize("pcm", [np.zeros((10, 2), np.int16), np.zeros(10, np.int32), np.zeros(10)])
def test_other_arrays_are_refused(pcm):
    with pytest.raises(ValueError, match="sound must be"):
        log_mel(pcm, RATE, SPEC)
