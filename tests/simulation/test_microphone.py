"""The simulated hall and its bad days, by a clock that the test moves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.capture.microphones.paced import PacedMicrophone
from edge_runtime.config.schema import MicrophoneConfig, SimSoundConfig
from edge_runtime.core.clock import ManualClock
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import State
from edge_runtime.simulation.microphone import open_sim
from edge_runtime.simulation.sound import SimSound


class Bench:
    """A simulated microphone, read every 30 ms of a moved clock."""

    def __init__(self, fault: str = "", **sim: Any) -> None:
        self.clock = ManualClock()
        days = {"fault": fault, "at_s": 2.0, "for_s": 6.0}
        sim_cfg = SimSoundConfig.model_validate({"bad_days": days, **sim})
        self.microphone: PacedMicrophone = open_sim(MicrophoneConfig(driver="sim", sim=sim_cfg), self.clock)
        self.microphone.start()
        self.chunks: list[AudioChunk] = []
        self.breaks: list[str] = []
        self.states: list[tuple[float, State]] = []
        self._began_ns = self.clock()

    def listen(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.03)):
            self.clock.advance_ms(30)
            for _ in range(400):
                try:
                    chunk = self.microphone.read(0.0)
                except MicrophoneLost as err:
                    self.breaks.append(str(err))
                    break
                if chunk is None:
                    break
                self.chunks.append(chunk)
            self.states.append(((self.clock() - self._began_ns) / 1e9, self.microphone.health().state))

    def fault_after_s(self) -> float:
        return next(at for at, state in self.states if state is State.FAILED) - 2.0


def test_good_day_is_real_time_and_whole():
    bench = Bench()
    bench.listen(10.0)
    assert abs(len(bench.chunks) - 333) <= 1 and not bench.breaks
    assert [c.seq for c in bench.chunks] == list(range(len(bench.chunks)))
    assert {state for _, state in bench.states[2:]} == {State.OK}


@pytest.mark.parametrize("fault", ["silence", "free_run", "hang", "disconnect"])
def test_bad_day_is_told_within_five_seconds_and_heals_by_itself(fault):
    bench = Bench(fault)
    bench.listen(20.0)
    assert bench.fault_after_s() <= 5.0
    assert bench.breaks and bench.microphone.health().state is State.OK
    seqs = [c.seq for c in bench.chunks]
    assert seqs == sorted(set(seqs)) and seqs[-1] > len(seqs) - 1, "the hole shows"
    times = [c.captured_ns for c in bench.chunks]
    assert all(a < b for a, b in itertools.pairwise(times))
    assert all(t <= bench.clock() for t in times)
    assert bench.microphone.report()["restarts"] >= 1


def test_overdriven_input_is_told_and_counted_but_goes_on():
    bench = Bench("clipping", words_per_min=60.0)
    bench.listen(12.0)
    assert State.DEGRADED in {state for at, state in bench.states if 2 < at < 8}
    assert bench.states[-1][1] is State.OK and not bench.breaks
    assert bench.microphone.report()["clipped_chunks"] > 20


def test_what_nobody_reads_for_five_seconds_is_overwritten_and_counted():
    bench = Bench()
    bench.listen(1.0)
    bench.clock.advance_ms(8000)
    bench.listen(0.03)
    assert bench.microphone.report()["overwritten"] == pytest.approx(100, abs=2)
    assert bench.chunks[-1].seq == pytest.approx(300, abs=2)
    assert max(b.seq - a.seq for a, b in itertools.pairwise(bench.chunks)) == pytest.approx(101, abs=2)


@pytest.mark.parametrize("noise", ["white", "hum", "clanks"])
def test_sound_follows_from_the_seed_and_has_the_loudness_asked_for(noise):
    cfg = SimSoundConfig(noise=noise, noise_dbfs=-40.0, words_per_min=0)
    one, other = SimSound(cfg, "", 16_000).next(80_000), SimSound(cfg, "", 16_000).next(80_000)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, SimSound(SimSoundConfig(seed=2, noise=noise), "", 16_000).next(80_000))
    rms_dbfs = 10 * np.log10(np.mean((one / 32768.0) ** 2))
    assert abs(rms_dbfs + 40.0) < 1.0


def test_what_is_spoken_can_be_looked_up():
    sound = SimSound(SimSoundConfig(words_per_min=30.0, noise_dbfs=-80.0), "", 16_000)
    pcm = sound.next(16_000 * 20).astype(float)
    assert 7 <= sum(end < 20.0 for _, end in sound.spoken) <= 11
    for start_s, end_s in [span for span in sound.spoken if span[1] < 20.0]:
        word = pcm[round(start_s * 16_000) : round(end_s * 16_000)]
        assert abs(10 * np.log10(np.mean((word / 32768.0) ** 2)) + 20.0) < 1.0
