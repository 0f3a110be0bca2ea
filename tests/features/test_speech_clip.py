"""Cutting one word out of a sound: centred, at one loudness, whatever was around it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.manifest import AudioInput
from edge_runtime.features.speech_clip import fit_clip, speech_span

SPEC = AudioInput(clip_ms=1600, loudness_dbfs=-20.0)
RATE = 16_000


def word(ms: int = 400, level: float = 0.1) -> np.ndarray:
    t = np.arange(RATE * ms // 1000) / RATE
    return np.asarray(level * np.sin(2 * np.pi * 440 * t) * np.hanning(len(t)) ** 0.2, np.float32)


def at(start_ms: int, total_ms: int, sound: np.ndarray, noise: float = 0.0) -> np.ndarray:
    whole = np.random.default_rng(1).normal(0, 1, RATE * total_ms // 1000).astype(np.float32) * np.float32(noise)
    whole[RATE * start_ms // 1000 :][: len(sound)] += sound
    return whole


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("start_ms", [0, 300, 2000])
def test_the_word_is_found_where_it_is(start_ms: int, noise: float) -> None:
    first, last = speech_span(at(start_ms, 3000, word(), noise), RATE)
    assert first == pytest.approx(RATE * start_ms / 1000, abs=RATE * 0.06)
    assert last == pytest.approx(RATE * (start_ms + 400) / 1000, abs=RATE * 0.06)


@pytest.mark.parametrize("start_ms", [0, 300, 2500])
@pytest.mark.parametrize("level", [0.003, 0.1, 0.9])
def test_place_and_loudness_are_the_same_afterwards(start_ms: int, level: float) -> None:
    clip = fit_clip(at(start_ms, 3000, word(level=level)), SPEC)
    assert len(clip) == RATE * 1600 // 1000
    first, last = speech_span(clip, RATE)
    assert (first + last) / 2 == pytest.approx(len(clip) / 2, abs=RATE * 0.05)
    loud = clip[first:last]
    assert 20 * np.log10(np.sqrt(np.mean(loud**2))) == pytest.approx(-20.0, abs=1.0)


def test_of_long_speech_the_middle_is_kept() -> None:
    sound = np.concatenate([word(1000, 0.05), word(1000, 0.1), word(1000, 0.05)])
    clip = fit_clip(sound, SPEC)
    assert np.argmax(np.abs(clip)) == pytest.approx(len(clip) / 2, abs=RATE * 0.55)


def test_without_a_set_loudness_nothing_is_changed() -> None:
    clip = fit_clip(word(1600, 0.3), AudioInput(clip_ms=1600, loudness_dbfs=None))
    assert np.abs(clip).max() == pytest.approx(0.3, abs=0.01)


def test_integers_and_floats_are_the_same_sound() -> None:
    pcm = np.rint(at(200, 1200, word()) * 32767).astype(np.int16)
    np.testing.assert_allclose(fit_clip(pcm, SPEC), fit_clip(pcm.astype(np.float32) / 32768, SPEC), atol=1e-6)


@given(st.integers(0, 40_000), st.sampled_from([0, 1, 32767]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_any_sound_gives_a_clip_within_full_scale(samples: int, level: int, seed: int) -> None:
    pcm = (np.random.default_rng(seed).integers(-1, 2, samples) * level).astype(np.int16)
    clip = fit_clip(pcm, SPEC)
    assert clip.shape == (25_600,)
    assert clip.dtype == np.float32
    assert np.isfinite(clip).all()
    assert np.abs(clip).max() < 1.0


@pytest.mark.parametrize("wrong", [np.zeros((2, 100), np.int16), np.zeros(100, np.float64), np.zeros(100, np.uint8)])
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one row of int16 or float32"):
        fit_clip(wrong, SPEC)
