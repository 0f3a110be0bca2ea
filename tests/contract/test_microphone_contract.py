"""What every microphone promises, simulated or real: one test over all drivers."""

from __future__ import annotations

import re
import threading
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edge_runtime.capture.microphones.drivers import DRIVERS, open_microphone
from edge_runtime.capture.microphones.microphone import Microphone
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import MS, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.core.status import MicrophoneReport
from edge_runtime.core.typed_json import from_json
from edge_runtime.flow.components import State
from tests.capture.fake_microphone import FifoMicrophone

HOUSE = Path(__file__).parents[2]
RATE_HZ, FRAME_MS = 16_000, 30
SOUND_WITHIN_S = 15.0
COUNTERS = {"driver", "chunks", "overruns", "overwritten", "clipped_chunks", "silent_chunks", "restarts"}


@dataclass
class Rig:
    microphone: Microphone
    clean: Callable[[], None] = lambda: None

    def chunk(self) -> AudioChunk:
        limit = time.monotonic() + SOUND_WITHIN_S
        while time.monotonic() < limit:
            chunk = self.microphone.read(0.5)
            if chunk is not None:
                return chunk
        raise AssertionError(f"no sound: {self.microphone.health()}")


def sim_rig(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(open_microphone(MicrophoneConfig(driver="sim"), monotonic_ns))


def wav_rig(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    for n in range(2):
        with wave.open(str(folder / f"{n}.wav"), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            file.writeframes(np.random.default_rng(n).integers(-900, 900, RATE_HZ).astype("<i2").tobytes())
    return Rig(open_microphone(MicrophoneConfig(driver="wav", file=str(folder)), monotonic_ns))


def pyaudio_rig(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    fifo = FifoMicrophone(folder, monkeypatch)
    fifo.bring()
    cfg = MicrophoneConfig(driver="pyaudio", device="benchmic")
    return Rig(open_microphone(cfg, monotonic_ns), fifo.take_away)


RIGS = {"sim": sim_rig, "wav": wav_rig, "pyaudio": pyaudio_rig}


@pytest.fixture(params=sorted(DRIVERS))
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    assert request.param in RIGS, f"driver '{request.param}' has no rig: write one, and its row in RIGS of this file"
    rig = RIGS[request.param](tmp_path, monkeypatch)
    yield rig
    rig.microphone.stop()
    rig.clean()


def test_chunks_are_read_only_mono_of_the_right_length(rig: Rig) -> None:
    rig.microphone.start()
    chunk = rig.chunk()
    assert chunk.rate_hz == RATE_HZ
    assert chunk.pcm.dtype == np.int16 and chunk.pcm.shape == (RATE_HZ * FRAME_MS // 1000,)
    with pytest.raises(ValueError, match="read-only"):
        chunk.pcm[0] = 1


def test_sequence_counts_and_time_of_capture_grows_also_over_a_restart(rig: Rig) -> None:
    rig.microphone.start()
    before = [rig.chunk() for _ in range(5)]
    rig.microphone.stop()
    rig.microphone.start()
    after = [rig.chunk() for _ in range(5)]
    assert [c.seq for c in before] == list(range(before[0].seq, before[0].seq + 5))
    pairs = list(pairwise(before + after))
    assert all(later.seq > earlier.seq for earlier, later in pairs)
    assert all(later.captured_ns > earlier.captured_ns for earlier, later in pairs)


def test_capture_is_now_and_not_in_the_future(rig: Rig) -> None:
    rig.microphone.start()
    chunk = rig.chunk()
    assert 0 <= monotonic_ns() - chunk.captured_ns < 2000 * MS


def test_read_gives_up_at_its_timeout(rig: Rig) -> None:
    rig.microphone.start()
    for timeout_s in (0.0, 0.001, 0.01, 0.05):
        began = time.monotonic()
        chunk = rig.microphone.read(timeout_s)
        took_s = time.monotonic() - began
        assert chunk is not None or took_s >= timeout_s
        assert took_s < timeout_s + SOUND_WITHIN_S / 4


def test_start_and_stop_may_be_called_twice(rig: Rig) -> None:
    rig.microphone.stop()
    rig.microphone.start()
    rig.microphone.start()
    assert rig.chunk()
    rig.microphone.stop()
    rig.microphone.stop()
    assert rig.microphone.read(0.0) is None


def test_stop_from_another_thread_ends_a_read(rig: Rig) -> None:
    rig.microphone.start()
    is_reading = threading.Event()

    def read_until_nothing_comes() -> None:
        is_reading.set()
        while rig.microphone.read(SOUND_WITHIN_S) is not None:
            pass

    reader = threading.Thread(target=read_until_nothing_comes)
    reader.start()
    assert is_reading.wait(SOUND_WITHIN_S)
    rig.microphone.stop()
    reader.join(SOUND_WITHIN_S / 2)
    assert not reader.is_alive()


def test_health_and_report_answer_in_every_state(rig: Rig) -> None:
    def look() -> State:
        assert set(rig.microphone.report()) >= COUNTERS
        from_json(MicrophoneReport, rig.microphone.report(), "microphone")  # what the status document understands
        return rig.microphone.health().state

    assert look() is State.STOPPED
    rig.microphone.start()
    assert look() in (State.STARTING, State.OK)
    rig.chunk()
    assert look() is State.OK
    assert rig.microphone.health().progress_ns is not None
    assert rig.microphone.report()["chunks"] >= 1
    rig.microphone.stop()
    assert look() is State.STOPPED


def test_start_does_not_wait_for_the_device(rig: Rig) -> None:
    began = time.monotonic()
    rig.microphone.start()
    assert time.monotonic() - began < 5.0  # a device may hang for ever


def test_nothing_is_left_behind(rig: Rig) -> None:
    threads = set(threading.enumerate())
    rig.microphone.start()
    rig.chunk()
    rig.microphone.stop()
    assert set(threading.enumerate()) == threads


def test_every_driver_is_in_each_place_that_names_drivers() -> None:
    told = re.findall(r"Microphone drivers: (.*)\.$", (HOUSE / "README.md").read_text(), re.MULTILINE)
    places = {
        "the names of MicrophoneConfig.driver in config/schema.py": {
            *get_args(MicrophoneConfig.model_fields["driver"].annotation)
        }
        - {"off"},
        "RIGS of this file": {*RIGS},
        "'Microphone drivers: ...' under Layout in README.md": {*re.findall("`([^`]+)`", " ".join(told))},
    }
    differ = {place: sorted(names ^ set(DRIVERS)) for place, names in places.items() if names != set(DRIVERS)}
    assert not differ, f"not as in DRIVERS of capture/microphones/drivers.py: {differ}"


def test_microphone_that_is_off_says_what_to_set() -> None:
    with pytest.raises(DeviceError, match=r"microphone\.driver"):
        open_microphone(MicrophoneConfig(), monotonic_ns)
