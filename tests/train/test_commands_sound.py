"""What the voice models' training does to a voice, and how it counts what it finds."""

from __future__ import annotations

import commands_data
import commands_sound as sound
import commands_words as words
import numpy as np
import pytest
from commands_judge import Share, accuracy, as_pcm, mains_hum, pink, white

RATE = sound.RATE_HZ


def tone(hz: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(int(RATE * seconds)) / RATE
    return np.asarray(0.5 * np.sin(2 * np.pi * hz * t), np.float32)


def pitch_hz(wave: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave))))) * RATE / len(wave))


@pytest.mark.parametrize("ratio", [0.7, 1.0, 16 / 22.05, 2 / 3, 1.3])
def test_resampling_moves_the_pitch_and_keeps_the_level(ratio: float) -> None:
    wave = tone()
    other = sound.resample(wave, ratio)
    assert len(other) == pytest.approx(len(wave) * ratio, abs=1)
    assert pitch_hz(other) == pytest.approx(440 / ratio, rel=0.02)
    assert other.std() == pytest.approx(wave.std(), rel=0.02)


def test_trimming_takes_the_silence_and_leaves_the_word() -> None:
    rest = np.zeros(RATE // 2, np.float32)
    trimmed = sound.trim(np.concatenate([rest, tone(), rest]))
    assert len(trimmed) == pytest.approx(RATE // 2, abs=RATE // 25)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 20.0])
def test_noise_is_as_loud_as_asked_for(snr_db: float) -> None:
    rest = np.zeros(RATE, np.float32)
    padded = np.concatenate([rest, tone(), rest])
    noise = pink(len(padded), np.random.default_rng(1))
    added = sound.add_noise(padded, noise, snr_db) - padded
    assert 20 * np.log10(tone().std() / added.std()) == pytest.approx(snr_db, abs=0.5)


@pytest.mark.parametrize(
    "kind", [sound.white, sound.pink, sound.hum, sound.machine, sound.clanks, pink, white, mains_hum]
)
def test_every_noise_is_finite_and_has_no_silent_seed(kind: object) -> None:
    for seed in range(5):
        noise = kind(RATE, np.random.default_rng(seed))  # type: ignore[operator]
        assert noise.shape == (RATE,)
        assert np.isfinite(noise).all()
        assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_a_way_through_the_world_is_repeatable_and_never_the_same_twice() -> None:
    chatter = [tone(300.0, 0.4), tone(900.0, 0.3)]
    ways = [sound.take_through_the_world(tone(), np.random.default_rng(seed), chatter) for seed in range(40)]
    again = [sound.take_through_the_world(tone(), np.random.default_rng(seed), chatter) for seed in range(40)]
    for first, second in zip(ways, again, strict=True):
        np.testing.assert_array_equal(first, second)
        assert np.isfinite(first).all()
        assert 0.0 < np.abs(first).max() <= 1.0
    assert len({way.tobytes() for way in ways}) == 40


def test_every_source_is_in_the_words_and_in_the_rest_alike() -> None:
    lines = commands_data.plan_lines(commands_data.Amounts())
    by_class: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for line in lines:
        voice = "any" if line.engine == "espeak" else line.voice
        by_class[line.label == words.OTHER].add((line.engine, voice))
    assert by_class[True] == by_class[False]
    assert {line.engine for line in lines} == {"espeak", "flite", "festival", "piper", "hibari"}


def test_a_voice_that_judges_never_trains() -> None:
    lines = commands_data.plan_lines(commands_data.Amounts())
    voices = {
        held: {(x.engine, x.voice.rpartition("+")[2]) for x in lines if x.held_back is held} for held in (True, False)
    }
    assert voices[True]
    assert not voices[True] & voices[False]


def test_the_same_plan_is_the_same_lines() -> None:
    amounts = commands_data.Amounts().scaled(0.1)
    assert commands_data.plan_lines(amounts) == commands_data.plan_lines(amounts)


def test_no_near_miss_is_a_word_itself() -> None:
    taken = {text for texts in words.spoken_words().values() for text in texts}
    assert not taken & {*words.hard_words(), *words.PLAIN}
    assert len(words.LABELS) == len(set(words.LABELS)) == 1 + 7 + 1 + 26 + 11
    homophones = {"for", "too", "to", "won", "ate"}
    assert not homophones & {*words.hard_words(), *words.PLAIN}


def test_shares_come_with_wilsons_interval() -> None:
    share = Share(95, 100)
    assert share.value == 0.95
    assert share.interval == pytest.approx((0.8882, 0.9785), abs=1e-3)  # Wilson 1927, z = 1.96
    assert Share(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_accuracy_counts_words_and_rejections_apart() -> None:
    labels = (words.OTHER, "one", "two")
    scores = np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2]], np.float32)
    found = accuracy(scores, np.array([1, 2, 0, 0]), labels)
    assert found == {"words": 0.5, "rejected": 0.5, "all": 0.5}


def test_a_recording_keeps_its_headroom() -> None:
    pcm = as_pcm(tone() * 7)
    assert pcm.dtype == np.int16
    assert np.abs(pcm).max() == pytest.approx(28_000, abs=2)
