"""The real PyAudio driver on real sound paths, and everything that a sound device does to its owner."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.capture.microphones.drivers import list_microphones, open_microphone
from edge_runtime.capture.microphones.microphone import Microphone, MicrophoneLost
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import State
from tests.capture.fake_microphone import RATE_HZ, TONE_HZ, FifoMicrophone, PulseMicrophone
from tests.support.waiting import seconds_until, until

FAULT_WITHIN_S = 5.0
BACK_WITHIN_S = 10.0


class Listener:
    """Reads on a thread of its own, as the voice line does."""

    def __init__(self, microphone: Microphone) -> None:
        self.microphone = microphone
        self.chunks: list[AudioChunk] = []
        self.breaks: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        microphone.start()
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                chunk = self.microphone.read(0.1)
            except MicrophoneLost as err:
                self.breaks.append(str(err))
            else:
                self.chunks += [chunk] if chunk else []

    def close(self) -> None:
        self._stop.set()
        self.microphone.stop()
        self._thread.join()

    def is_well(self) -> bool:
        return self.microphone.health().state is State.OK

    def is_broken(self) -> bool:
        return self.microphone.health().state is State.FAILED

    def story(self) -> object:
        return self.microphone.health(), self.microphone.report(), self.breaks

    def tone_hz(self) -> float:
        pcm = np.concatenate([chunk.pcm for chunk in self.chunks[-20:]])
        spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
        return float(spectrum.argmax() * RATE_HZ / pcm.size)


Listen = Callable[..., Listener]


@pytest.fixture
def listen() -> Iterator[Listen]:
    listeners: list[Listener] = []

    def begin(**config: Any) -> Listener:
        cfg = MicrophoneConfig(driver="pyaudio", **({"device": "benchmic", "retry_max_s": 0.5} | config))
        listeners.append(Listener(open_microphone(cfg, monotonic_ns)))
        return listeners[-1]

    yield begin
    for listener in listeners:
        listener.close()


@pytest.fixture
def fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FifoMicrophone]:
    rig = FifoMicrophone(tmp_path, monkeypatch)
    yield rig
    rig.take_away()


@pytest.fixture
def pulse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PulseMicrophone]:
    rig = PulseMicrophone(tmp_path, monkeypatch)
    yield rig
    rig.take_away()


def test_sound_of_an_alsa_device_arrives_in_time_and_true(fifo: FifoMicrophone, listen: Listen) -> None:
    fifo.bring()
    ear = listen()
    until(lambda: len(ear.chunks) >= 60, BACK_WITHIN_S, ear.story)
    assert ear.is_well() and "benchmic, 16000 Hz" in ear.microphone.health().detail
    assert abs(ear.tone_hz() - TONE_HZ) < 3
    chunks = ear.chunks[10:]
    assert {chunk.pcm.size for chunk in chunks} == {480} and not chunks[0].pcm.flags.writeable
    span_s = (chunks[-1].captured_ns - chunks[0].captured_ns) / 1e9
    assert 0.5 < span_s / (0.03 * (len(chunks) - 1)) < 2.0
    assert 0 <= monotonic_ns() - ear.chunks[-1].captured_ns < 2e9
    report = ear.microphone.report()
    assert report["restarts"] == 0 and not ear.breaks


def test_feeder_that_ends_is_told_and_its_return_heals(fifo: FifoMicrophone, listen: Listen) -> None:
    fifo.bring()
    ear = listen()
    until(lambda: len(ear.chunks) >= 10, BACK_WITHIN_S, ear.story)
    fifo.take_away()
    until(ear.is_broken, FAULT_WITHIN_S, ear.story)
    until(lambda: bool(ear.breaks), FAULT_WITHIN_S, ear.story)
    heard = len(ear.chunks)
    fifo.bring()
    until(ear.is_well, BACK_WITHIN_S, ear.story)
    assert heard < 300 and len(ear.chunks) > heard  # running free it would be tens of thousands
    assert ear.microphone.report()["restarts"] >= 1
    assert abs(ear.tone_hz() - TONE_HZ) < 3


def test_device_whose_open_hangs_is_told_and_opens_when_it_can(fifo: FifoMicrophone, listen: Listen) -> None:
    ear = listen()
    assert ear.microphone.health().state is State.STARTING
    until(ear.is_broken, FAULT_WITHIN_S, ear.story)
    assert "hangs" in ear.microphone.health().detail
    fifo.bring()
    until(ear.is_well, BACK_WITHIN_S, ear.story)


def test_feeder_that_is_stuck_is_told_and_heals(fifo: FifoMicrophone, listen: Listen) -> None:
    fifo.bring()
    ear = listen()
    until(lambda: len(ear.chunks) >= 80, BACK_WITHIN_S, ear.story)
    fifo.freeze()
    took_s = seconds_until(ear.is_broken, FAULT_WITHIN_S, ear.story)
    fifo.thaw()
    until(ear.is_well, BACK_WITHIN_S, ear.story)
    assert took_s < FAULT_WITHIN_S and ear.breaks


def test_sound_process_that_dies_is_replaced(fifo: FifoMicrophone, listen: Listen) -> None:
    fifo.bring()
    ear = listen()
    until(lambda: len(ear.chunks) >= 10, BACK_WITHIN_S, ear.story)
    first = ear.microphone.report()["child_pid"]
    os.kill(first, signal.SIGSEGV)
    until(lambda: bool(ear.breaks), FAULT_WITHIN_S, ear.story)
    assert "signal 11" in ear.breaks[0]
    until(ear.is_well, BACK_WITHIN_S, ear.story)
    assert ear.microphone.report()["child_pid"] not in (None, first)
    seqs = [chunk.seq for chunk in ear.chunks]
    assert seqs == sorted(set(seqs)) and seqs[-1] > len(seqs) - 1  # the hole shows


def test_name_that_no_device_has_names_those_that_are_there(fifo: FifoMicrophone, listen: Listen) -> None:
    fifo.bring()
    ear = listen(device="headset of the shift leader")
    until(ear.is_broken, FAULT_WITHIN_S, ear.story)
    detail = ear.microphone.health().detail
    assert "no microphone 'headset of the shift leader'" in detail and "benchmic" in detail


def test_devices_are_listed_by_name(fifo: FifoMicrophone) -> None:
    fifo.bring()
    assert "benchmic" in [device.name for device in list_microphones()]


def test_sound_system_that_hangs_does_not_hang_the_list(fifo: FifoMicrophone) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError, match="does not answer within 1 s"):
        list_microphones(timeout_s=1.0)
    assert time.monotonic() - began < FAULT_WITHIN_S


def test_stop_ends_the_sound_process_also_while_it_hangs(fifo: FifoMicrophone, listen: Listen) -> None:
    ear = listen()
    until(lambda: ear.microphone.report()["child_pid"] is not None, FAULT_WITHIN_S, ear.story)
    child = ear.microphone.report()["child_pid"]
    began = time.monotonic()
    ear.close()
    assert time.monotonic() - began < 5.0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_sound_daemon_that_is_killed_is_told_and_its_return_heals(pulse: PulseMicrophone, listen: Listen) -> None:
    pulse.bring()
    ear = listen()
    until(lambda: len(ear.chunks) >= 25 and abs(ear.tone_hz() - TONE_HZ) < 5, BACK_WITHIN_S, ear.story)
    assert ear.is_well()
    pulse.take_away()
    until(ear.is_broken, FAULT_WITHIN_S, ear.story)
    pulse.bring()
    until(ear.is_well, BACK_WITHIN_S, ear.story)


def test_device_that_refuses_the_rate_is_opened_at_its_own_and_brought_to_ours() -> None:
    pytest.importorskip("pyaudio", reason="PyAudio is not installed: pip install 'edge-runtime[voice]'")
    from edge_runtime.capture.microphones import pyaudio_child

    tried: list[tuple[int, int]] = []

    class Refusing:
        """A device of 48 kHz stereo, as many USB microphones are. The choice is made here, no sound flows."""

        def open(self, rate: int, channels: int, *_: object, **__: object) -> tuple[int, int]:
            tried.append((rate, channels))
            if (rate, channels) != (48_000, 2):
                raise OSError(-9997, "Invalid sample rate")
            return tried[-1]

    device = {"name": "usb", "channels": 2}
    stream, rate_hz, channels = pyaudio_child._open(Refusing(), 0, device, RATE_HZ, 30)
    assert stream == (rate_hz, channels) == (48_000, 2) and tried[0] == (RATE_HZ, 1)
    convert = pyaudio_child._converter(rate_hz, channels, RATE_HZ)
    left = np.rint(8000 * np.sin(2 * np.pi * TONE_HZ * np.arange(48_000) / 48_000)).astype(np.int16)
    stereo = np.column_stack([left, -left])
    pcm = np.frombuffer(b"".join(convert(part.tobytes()) for part in np.split(stereo[:47_520], 33)), np.int16)
    assert pcm.size == 33 * 480
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
    assert abs(spectrum.argmax() * RATE_HZ / pcm.size - TONE_HZ) < 3
    with pytest.raises(OSError, match="another program"):
        pyaudio_child._open(Refusing(), 0, {"name": "usb", "channels": 1}, RATE_HZ, 30)
