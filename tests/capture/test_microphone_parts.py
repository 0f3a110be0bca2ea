"""The ring, the judge of streams and the wire, without a device."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.capture.microphones.audio_ring import AudioRing
from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.capture.microphones.pyaudio_wire import Decoder, Kind, Message, encode
from edge_runtime.capture.microphones.sound_watch import SoundWatch
from edge_runtime.core.clock import MS
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import State

RATE_HZ, SIZE = 16_000, 480


def chunk(seq: int) -> AudioChunk:
    return AudioChunk(seq, seq * 30 * MS, RATE_HZ, np.full(SIZE, seq, np.int16))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 500, SIZE).astype(np.int16)


def test_ring_keeps_the_newest_five_seconds_and_counts_the_rest():
    ring = AudioRing()
    ring.open()
    for seq in range(400):
        ring.put(chunk(seq))
    kept = [ring.take(0.0).seq for _ in range(len(ring))]
    assert kept == list(range(234, 400)) and ring.overwritten == 234
    assert ring.take(0.0) is None


@given(st.lists(st.booleans(), max_size=400))
def test_each_chunk_is_read_once_or_overwritten_once(moves):
    ring = AudioRing(seconds=0.3)
    ring.open()
    put, read = 0, []
    for is_put in moves:
        if is_put:
            ring.put(chunk(put))
            put += 1
        elif (got := ring.take(0.0)) is not None:
            read.append(got.seq)
    assert read == sorted(set(read))
    assert len(read) + ring.overwritten + len(ring) == put


def test_break_is_raised_once_and_behind_what_was_heard():
    ring = AudioRing()
    ring.open()
    ring.put(chunk(0))
    ring.break_off(MicrophoneLost("gone"))
    assert ring.take(0.0).seq == 0
    with pytest.raises(MicrophoneLost, match="gone"):
        ring.take(0.0)
    assert ring.take(0.0) is None


def test_closing_wakes_who_waits():
    ring = AudioRing()
    ring.open()
    got = []
    reader = threading.Thread(target=lambda: got.append(ring.take(30.0)))
    reader.start()
    ring.close()
    reader.join(10.0)
    assert got == [None]


def run(
    watch: SoundWatch, period_ms: float, seconds: float, begin_ms: float = 0.0, still: bool = False
) -> float | None:
    """Feeds chunks; the second at which a fault was told, None without."""
    for n in range(round(seconds * 1000 / period_ms)):
        at_ms = begin_ms + n * period_ms
        if watch.heard(np.zeros(SIZE, np.int16) if still else noise(n), round(at_ms * MS)):
            return (at_ms - begin_ms) / 1000
    return None


@pytest.mark.parametrize(("period_ms", "is_fault"), [(30, False), (29, False), (22, False), (19, True), (0.08, True)])
def test_sound_that_comes_too_fast_is_a_fault(period_ms, is_fault):
    told = run(SoundWatch(RATE_HZ, 4.0), period_ms, 6.0)
    assert (told is not None) == is_fault
    assert told is None or told <= 2.1


@pytest.mark.parametrize(("period_ms", "is_fault"), [(31, False), (50, False), (65, True), (200, True)])
def test_sound_that_comes_too_slowly_is_a_fault(period_ms, is_fault):
    told = run(SoundWatch(RATE_HZ, 4.0), period_ms, 6.0)
    assert (told is not None) == is_fault
    assert told is None or told <= 2.3


def test_sound_that_stops_is_told_within_two_seconds():
    watch = SoundWatch(RATE_HZ, 4.0)
    assert run(watch, 30, 5.0) is None
    told_ms = next(ms for ms in range(5000, 9000, 20) if watch.waited(ms * MS))
    assert told_ms - 5000 <= 2000
    assert watch.health("").state is State.FAILED


def test_catching_up_after_a_hiccup_is_no_fault():
    watch = SoundWatch(RATE_HZ, 4.0)
    assert run(watch, 30, 3.0) is None
    for n in range(27):  # 0.8 s in one go
        assert not watch.heard(noise(n), 3800 * MS)
    assert run(watch, 30, 3.0, begin_ms=3830) is None


def test_digital_silence_and_stuck_buffers_are_faults_and_quiet_rooms_are_not():
    silent, stuck, quiet, off = (SoundWatch(RATE_HZ, seconds) for seconds in (4.0, 4.0, 4.0, 0.0))
    assert run(silent, 30, 10.0, still=True) == pytest.approx(4.0, abs=0.1)
    assert "muted or unplugged" in silent.health("").detail
    same = noise(1)
    told = next(n for n in range(400) if stuck.heard(same, n * 30 * MS))
    assert told * 0.03 == pytest.approx(4.0, abs=0.1) and "again and again" in stuck.complaint
    rng = np.random.default_rng(1)
    assert not any(quiet.heard(rng.integers(0, 2, SIZE).astype(np.int16), n * 30 * MS) for n in range(400))
    assert run(off, 30, 10.0, still=True) is None


def test_fault_is_forgotten_after_a_second_of_good_sound_only():
    watch = SoundWatch(RATE_HZ, 4.0)
    watch.failed("unplugged")
    run(watch, 30, 0.9)
    assert watch.health("").state is State.FAILED
    run(watch, 30, 0.2, begin_ms=900)
    assert watch.health("").state is State.OK


messages = st.builds(
    Message,
    st.sampled_from(Kind),
    st.binary(max_size=2000),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
)


@given(st.lists(messages, max_size=6), st.integers(1, 300))
def test_messages_survive_any_cut_of_the_pipe(said, size):
    data = b"".join(map(encode, said))
    decoder = Decoder()
    heard = [m for start in range(0, len(data), size) for m in decoder.feed(data[start : start + size])]
    assert heard == said


@given(st.binary(max_size=400))
def test_nonsense_on_the_pipe_is_an_ordinary_error(data):
    try:
        Decoder().feed(data)
    except ValueError:
        pass
