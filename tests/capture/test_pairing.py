"""Pairing of frames with parts: whatever arrives, in whatever order, no part gets another part's picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.capture.pairing import HELD_FRAMES, HELD_TRIGGERS, Pairing
from edge_runtime.config.schema import CameraConfig
from edge_runtime.core.clock import MS, SECOND, ManualClock
from edge_runtime.core.errors import ConfigError
from edge_runtime.core.messages import Frame, PartKey, Trigger

WAYS = ("part", "encoder", "time")
PITCH_COUNTS, PITCH_MS = 200, 100
IMAGE = np.zeros((1, 1, 3), np.uint8)
FIRST_COUNT = 2**32 - 2 * PITCH_COUNTS  # the third part is behind the wrap


def key(n: int) -> PartKey:
    return PartKey(7, n + 1)


def trigger(n: int) -> Trigger:
    return Trigger(key(n), (FIRST_COUNT + n * PITCH_COUNTS) % 2**32, SECOND + n * PITCH_MS * MS)


def frame(n: int, way: str = "encoder", off: float = 0.0, seq: int | None = None) -> Frame:
    """The picture of part n as a camera of that way stamps it, `off` tolerances away from where it should be."""
    counts = round(off * CameraConfig().tolerance_counts)
    captured_ns = trigger(n).at_ns + round(off * CameraConfig().tolerance_ms * MS)
    return Frame(
        "cam0",
        n if seq is None else seq,
        captured_ns,
        500,
        IMAGE,
        part=key(n) if way == "part" else None,
        encoder=(FIRST_COUNT + n * PITCH_COUNTS + counts) % 2**32 if way == "encoder" else None,
    )


def pairing(way: str = "encoder", **camera: float) -> Pairing:
    return Pairing(way, CameraConfig.model_validate(camera), ManualClock())


@pytest.mark.parametrize("way", WAYS)
def test_frame_pairs_whether_it_comes_before_or_after_its_trigger(way: str) -> None:
    pairs = pairing(way)
    assert pairs.on_frame(frame(0, way)) == []
    assert [(t.key, f.seq) for t, f in pairs.on_trigger(trigger(0))] == [(key(0), 0)]
    assert pairs.on_trigger(trigger(1)) == []
    assert [(t.key, f.seq) for t, f in pairs.on_frame(frame(1, way))] == [(key(1), 1)]


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
def test_no_interleaving_pairs_a_frame_with_a_wrong_part(way: str, data: st.DataObject) -> None:
    parts = range(12)
    offs = {n: data.draw(st.floats(-1.0, 1.0)) for n in parts}
    arrivals = [("trigger", n) for n in parts] + [("frame", n) for n in parts]
    lost = data.draw(st.sets(st.sampled_from(arrivals)))
    repeated = data.draw(st.lists(st.sampled_from(arrivals), max_size=6))
    forgotten = data.draw(st.sets(st.sampled_from(parts)))
    events = [e for e in arrivals if e not in lost] + repeated + [("forget", n) for n in forgotten]
    pairs, made = pairing(way), []
    for kind, n in data.draw(st.permutations(events)):
        if kind == "trigger":
            made += pairs.on_trigger(trigger(n))
        elif kind == "frame":
            made += pairs.on_frame(frame(n, way, offs[n]))
        else:
            pairs.forget(key(n))
    assert all(t.key == key(f.seq) for t, f in made)
    assert len({t.key for t, _ in made}) == len(made)
    assert len({f.seq for _, f in made}) == len(made)


@given(late=st.integers(0, 3), lost=st.sets(st.integers(0, 39)), tolerance=st.integers(40, 100_000))
def test_parts_closer_than_the_tolerance_never_swap_pictures_once_two_have_passed(
    late: int, lost: set[int], tolerance: int
) -> None:
    """60 parts/s at 2000 counts/s: 33 counts from part to part, and triggers that arrive some parts late."""
    pairs = pairing(tolerance_counts=tolerance)
    made = []
    for now in range(40 + late):
        if now < 40 and (now not in lost or now < 2):
            made += pairs.on_frame(Frame("cam0", now, SECOND, 0, IMAGE, encoder=now * 33))
        if now >= late:
            made += pairs.on_trigger(Trigger(key(now - late), (now - late) * 33, SECOND))
    assert all(t.key == key(f.seq) for t, f in made)
    assert len(made) == 40 - len({n for n in lost if n >= 2})


def test_frame_outside_the_tolerance_stays_alone() -> None:
    pairs = pairing()
    pairs.on_trigger(trigger(0))
    assert pairs.on_frame(frame(0, off=1.5)) == []
    pairs = pairing("time")
    pairs.on_trigger(trigger(0))
    assert pairs.on_frame(frame(0, "time", off=1.5)) == []


def test_stamps_pair_across_the_wrap_of_the_encoder() -> None:
    pairs = pairing()
    pairs.on_trigger(Trigger(key(0), 2**32 - 5, SECOND))
    assert pairs.on_frame(Frame("cam0", 0, SECOND, 0, IMAGE, encoder=10))


def test_delay_from_eye_to_exposure_is_taken_off_when_pairing_by_time() -> None:
    pairs = pairing("time", delay_ms=50.0)
    pairs.on_trigger(trigger(0))
    late = trigger(0).at_ns + 55 * MS
    assert pairs.on_frame(Frame("cam0", 0, trigger(0).at_ns, 0, IMAGE)) == []
    assert pairs.on_frame(Frame("cam0", 1, late, 0, IMAGE))


def test_nearest_of_several_frames_is_taken() -> None:
    pairs = pairing("time")
    for seq, off in enumerate((-0.9, 0.2, 0.8)):
        pairs.on_frame(frame(0, "time", off, seq))
    assert pairs.on_trigger(trigger(0))[0][1].seq == 1


def test_forgotten_part_gets_no_frame() -> None:
    pairs = pairing()
    pairs.on_trigger(trigger(0))
    pairs.forget(key(0))
    pairs.forget(key(5))
    assert pairs.on_frame(frame(0)) == []


def test_frame_without_a_stamp_pairs_with_nothing() -> None:
    pairs = pairing()
    pairs.on_trigger(trigger(0))
    assert pairs.on_frame(frame(0, "time")) == []
    by_part = pairing("part")
    by_part.on_trigger(trigger(0))
    assert by_part.on_frame(frame(0, "time")) == []


def test_waiting_frames_and_triggers_are_bounded_and_counted() -> None:
    pairs = pairing()
    for n in range(3 * HELD_TRIGGERS):
        pairs.on_trigger(trigger(2 * n))
        pairs.on_frame(frame(2 * n + 1))
    report = pairs.report()
    assert report["waiting_frames"] == HELD_FRAMES
    assert report["waiting_triggers"] == HELD_TRIGGERS
    assert report["unpaired_frames"] == 3 * HELD_TRIGGERS - HELD_FRAMES


def test_frame_that_waited_too_long_belongs_to_nobody() -> None:
    clock = ManualClock()
    pairs = Pairing("encoder", CameraConfig(), clock)
    pairs.on_frame(frame(0))
    clock.advance_ms(5000)
    assert pairs.on_trigger(trigger(0)) == []
    assert pairs.unpaired_frames == 1


def test_bouncing_eye_narrows_the_tolerance_only_for_a_while() -> None:
    pairs = pairing()
    pairs.on_trigger(Trigger(key(100), FIRST_COUNT - 3, SECOND))
    pairs.on_trigger(trigger(0))
    assert pairs.on_frame(frame(0, off=0.5)) == []  # 20 counts: could be either
    for n in range(1, 30):
        pairs.on_trigger(trigger(n))
    assert pairs.on_frame(frame(29, off=0.5))


def test_unknown_way_of_pairing_is_refused() -> None:
    with pytest.raises(ConfigError, match="part, encoder or time"):
        pairing("latest")
