"""Recordings as a microphone: formats, rates, folders, ends and bad files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.capture.microphones.drivers import open_microphone
from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import ManualClock
from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import State
from edge_runtime.media.resample import Resampler
from edge_runtime.media.wav_file import read_wav


def tone(rate_hz: int, hz: float, seconds: float = 1.0, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)


def write(path: Path, sound: np.ndarray, rate_hz: int = 16_000, width: int = 2, channels: int = 1) -> Path:
    scaled = np.repeat(np.rint(sound * (2 ** (8 * width - 1) - 1)).astype(np.int64), channels)
    if width == 1:
        data = (scaled + 128).astype(np.uint8).tobytes()
    else:
        data = scaled.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate_hz, 0, "NONE", ""))
        file.writeframes(data)
    return path


def strongest_hz(pcm: np.ndarray, rate_hz: int = 16_000) -> float:
    return float(np.abs(np.fft.rfft(pcm * np.hanning(pcm.size))).argmax() * rate_hz / pcm.size)


def hear_all(cfg: MicrophoneConfig) -> np.ndarray:
    microphone = open_microphone(cfg, ManualClock())
    microphone.start()
    chunks = []
    with pytest.raises(MicrophoneLost, match="end of"):
        while True:
            chunks.append(microphone.read(0.0).pcm)
    assert microphone.health().state is State.FAILED
    return np.concatenate(chunks)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_width_and_two_channels_sound_the_same(tmp_path, width, channels):
    sound = tone(16_000, 440)
    pcm = read_wav(write(tmp_path / "x.wav", sound, width=width, channels=channels), 16_000)
    assert pcm.dtype == np.int16 and pcm.shape == (16_000,) and not pcm.flags.writeable
    assert np.abs(pcm - sound * 32767).max() <= (260 if width == 1 else 2)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_100, 48_000])
def test_every_rate_becomes_the_one_asked_for(tmp_path, rate_hz):
    pcm = read_wav(write(tmp_path / "x.wav", tone(rate_hz, 1000), rate_hz), 16_000)
    assert abs(pcm.size - 16_000) <= 1
    assert abs(strongest_hz(pcm) - 1000) < 2
    middle = pcm[2000:14_000].astype(float)
    assert abs(np.sqrt(np.mean(middle**2)) / (0.5 * 32767 / np.sqrt(2)) - 1) < 0.01


def test_what_the_lower_rate_cannot_carry_is_gone():
    for hz in (8200, 10_000, 12_000, 15_000, 23_000):
        out = Resampler(48_000, 16_000)((tone(48_000, hz) * 32767).astype(np.int16))
        assert np.abs(out[500:-500]).max() < 0.5 * 32767 * 10 ** (-50 / 20), hz


def test_resampling_does_not_depend_on_how_the_sound_is_cut():
    pcm = np.random.default_rng(1).integers(-9000, 9000, 30_000).astype(np.int16)
    for rates in ((48_000, 16_000), (44_100, 16_000), (8000, 16_000)):
        whole, cut = Resampler(*rates), Resampler(*rates)
        pieces = np.split(pcm, [1, 7, 480, 481, 5000, 5001, 22_222])
        assert np.array_equal(whole(pcm), np.concatenate([cut(piece) for piece in pieces])), rates


def test_device_chunk_of_48_khz_becomes_exactly_one_chunk():
    for rate_hz in (48_000, 44_100):
        resample = Resampler(rate_hz, 16_000)
        assert {resample(np.zeros(rate_hz * 30 // 1000, np.int16)).size for _ in range(50)} == {480}


def test_folder_is_heard_in_order_of_name_with_gaps(tmp_path):
    for n, hz in enumerate((500, 1500, 2500)):
        write(tmp_path / f"{n}.wav", tone(16_000, hz, 0.6))
    heard = hear_all(MicrophoneConfig(driver="wav", file=str(tmp_path), paced=False, loops=False, gap_ms=300))
    assert heard.size == pytest.approx(3 * 0.9 * 16_000, abs=480)
    at = [strongest_hz(heard[round(s * 16_000) :][:8000]) for s in (0.05, 0.95, 1.85)]
    assert at == pytest.approx([500, 1500, 2500], abs=5)
    assert not heard[10_000:14_000].any()


def test_paced_sound_comes_in_real_time_and_starts_again(tmp_path):
    clock = ManualClock()
    cfg = MicrophoneConfig(driver="wav", file=str(write(tmp_path / "x.wav", tone(16_000, 300, 0.5))), gap_ms=0)
    microphone = open_microphone(cfg, clock)
    microphone.start()
    heard = 0
    for _ in range(100):
        clock.advance_ms(30)
        while microphone.read(0.0) is not None:
            heard += 1
    assert heard == 100
    assert microphone.health().state is State.OK


def test_unread_files_of_a_folder_are_passed_over_and_counted(tmp_path):
    write(tmp_path / "a.wav", tone(16_000, 300, 0.3))
    (tmp_path / "b.wav").write_bytes(b"RIFF no sound at all")
    write(tmp_path / "c.wav", np.empty(0))
    heard = hear_all(MicrophoneConfig(driver="wav", file=str(tmp_path), paced=False, loops=False, gap_ms=0))
    assert heard.size == 4800


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"RIFF\x10\0\0\0WAVEjunk", "damaged WAV"),
        (b"\0" * 5000, "not a sound file"),
    ],
)
def test_bad_file_is_refused_in_words_at_the_start(tmp_path, content, words):
    path = tmp_path / "x.wav"
    if content is not None:
        path.write_bytes(content)
    microphone = open_microphone(MicrophoneConfig(driver="wav", file=str(path)), ManualClock())
    with pytest.raises(DeviceError, match=words):
        microphone.start()
    assert microphone.health().state is State.STOPPED
    microphone.stop()


def test_no_file_at_all_names_the_key():
    microphone = open_microphone(MicrophoneConfig(driver="wav"), ManualClock())
    with pytest.raises(DeviceError, match=r"microphone\.file is empty"):
        microphone.start()
