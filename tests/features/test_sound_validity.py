"""Sound that shows nothing is told with its reason; quiet rooms, claps, hum, tones and coarse files are sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.features.sound_validity import MACHINE, SPEECH, SoundCheck, flat_share, why_invalid

RATE = 16_000
T = np.arange(RATE) / RATE


def noise(rms, seed=1, count=RATE):
    return np.random.default_rng(seed).normal(0.0, rms, count)


def pcm(sound, stop=32767):
    return np.clip(np.rint(sound), -stop - 1, stop).astype(np.int16)


def sine(hz, amplitude):
    return amplitude * np.sin(2 * np.pi * hz * T)


def claps(a_second):
    sound = noise(5.0)
    for at in range(0, RATE, RATE // a_second):
        sound[at : at + 200] += noise(40_000.0, at, 200) * np.exp(-np.arange(200) / 60)
    return pcm(sound)


def dither():
    rng = np.random.default_rng(1)
    return np.rint(rng.uniform(-0.5, 0.5, RATE) + rng.uniform(-0.5, 0.5, RATE))


NOTHING = {
    "zeros": (np.zeros(RATE), "digital silence"),
    "offset alone": (np.full(RATE, -300), "one value, -300"),
    "full scale alone": (np.full(RATE, 32767), "one value, 32767"),
    "alternating last bit": (np.tile([1, -1], RATE // 2), "last bit"),
    "last bit over an offset": (np.tile([40, 41], RATE // 2), "last bit"),
    "random last bit": (np.random.default_rng(1).integers(-1, 2, RATE), "last bit"),
    "triangular dither": (dither(), "last bit"),
    "a loose plug": (noise(2000.0) * (T % 0.5 < 0.15), "dead for 68 %"),
    "one buffer of 30 ms": (np.tile(noise(3000.0), 1)[np.arange(RATE) % 480], "the same 30 ms"),
    "one quiet buffer of 64 ms": (noise(5.0)[np.arange(RATE) % 1024], "the same 64 ms"),
    "one buffer of 375 ms": (noise(5.0)[np.arange(RATE) % 6000], "the same 375 ms"),
    "overdriven by 20": (noise(60_000.0), "clipped"),
    "overdriven tone": (sine(440, 80_000), "clipped"),
    "one side clipped": (np.minimum(noise(9000.0), 3000), "clipped 3"),
    "an amplifier's stop": (np.clip(noise(18_000.0), -12_000, 12_000) + noise(3.0, 2), "clipped"),
    "made quieter after it clipped": (np.rint(np.clip(noise(60_000.0), -32768, 32767) * 0.1), "clipped"),
    "square": (20_000 * np.sign(np.sin(2 * np.pi * 333 * T + 0.1)), "clipped"),
}
SOUND = {
    "a quiet room": pcm(noise(2.0)),
    "a very quiet room": pcm(noise(1.2)),
    "a quiet room with an offset": pcm(noise(2.0) - 700),
    "noise": pcm(noise(3000.0)),
    "loud noise": pcm(noise(10_000.0)),
    "claps": claps(4),
    "hum": pcm(sine(50, 3000) + noise(3.0)),
    "quiet hum alone": pcm(sine(50, 1100)),
    "hum at full scale": pcm(sine(50, 32_767)),
    "8 bit": pcm(np.rint(sine(440, 127)) * 256),
    "8 bit, quiet": pcm(np.rint(sine(440, 5) + noise(0.3)) * 256),
    "half a second of gap": pcm(noise(2000.0) * (T < 0.5)),
} | {f"a tone of {hz} Hz": pcm(sine(hz, 8000)) for hz in (100, 440, 500, 1000, 2000, 4000, 7000)}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("as_float", [False, True])
def test_what_shows_nothing_is_told_with_its_reason(name, as_float):
    sound, says = pcm(NOTHING[name][0]), NOTHING[name][1]
    assert says in why_invalid(sound / np.float32(32768) if as_float else sound, RATE)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("bounds", [MACHINE, SPEECH], ids=["machine", "speech"])
def test_what_is_sound_is_never_refused(name, bounds):
    assert why_invalid(SOUND[name], RATE, bounds) == ""
    assert why_invalid(SOUND[name] / np.float32(32768), RATE, bounds) == ""


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31), st.sampled_from([8000, 16_000, 44_100, 48_000]), st.floats(1.5, 9000.0),
    st.integers(-500, 500), st.floats(0.3, 2.0),
)  # fmt: skip
def test_noise_of_any_loudness_length_and_rate_is_sound(seed, rate, rms, offset, seconds):
    assert why_invalid(pcm(noise(rms, seed, round(rate * seconds)) + offset), rate) == ""


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(800.0, 12_000.0), st.floats(0.06, 0.9), st.floats(0.1, 1.0))
def test_the_share_that_clipped_is_found_whatever_the_stop_and_the_gain_after_it(seed, rms, share, gain):
    sound = noise(rms, seed)
    stop = float(np.quantile(np.abs(sound), 1.0 - share))
    clipped = pcm(np.clip(sound, -stop, stop) * max(gain, 1100.0 / stop))
    assert flat_share(clipped.astype(np.float32)) == pytest.approx(share, abs=0.03)


def test_speech_between_digital_silence_is_speech_and_a_machine_does_not_pause():
    gated = pcm(noise(2000.0) * (T < 0.2))
    assert why_invalid(gated, RATE, SPEECH) == ""
    assert "dead for 80 %" in why_invalid(gated, RATE, MACHINE)
    assert "digital silence" in why_invalid(np.zeros(RATE, np.int16), RATE, SPEECH)


@pytest.mark.parametrize("block", [1000, 7000, 16_000, 80_000])
def test_a_recording_tells_which_of_its_seconds_show_nothing(block):
    sound = (noise(2000.0, 1, 8 * RATE) / 32768).astype(np.float32)
    sound[2 * RATE : 5 * RATE] = 0.0
    check = SoundCheck()
    for at in range(0, len(sound), block):
        check(sound[at : at + block], RATE)
    assert check.why.startswith("digital silence") and "(from 2 to 5 s)" in check.why
    assert check.why_all == ""


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.5])
def test_a_recording_of_nothing_is_nothing_at_any_length(seconds):
    check = SoundCheck()
    check(np.zeros(round(seconds * RATE), np.float32), RATE)
    assert check.why == check.why_all != ""
    assert SoundCheck().why_all == "no sound at all"


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize("offset", [-12000, -3000, 1500, 8000])
@pytest.mark.parametrize("spread", [1.5, 3.0, 40.0])
def test_quiet_sound_on_an_offset_is_not_clipped(rate_hz: int, offset: int, spread: float) -> None:
    """A cheap converter's zero is not at 0; the quiet noise on it is narrower than the band of a flat top."""
    noise = np.random.default_rng(4).normal(offset, spread, rate_hz)
    assert why_invalid(noise.round().astype(np.int16), rate_hz) == ""


@pytest.mark.parametrize("offset", [0, 5000, -9000])
def test_stop_of_an_amplifier_is_told_on_any_offset(offset: int) -> None:
    loud = np.clip(np.random.default_rng(4).normal(0, 12000, 16000), -9000, 9000) + offset
    assert why_invalid(loud.round().astype(np.int16), 16000).startswith("clipped")
