"""The simulated belt: the same answers in every process, in any order."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.schema import WorldConfig
from edge_runtime.core.clock import SECOND
from edge_runtime.simulation.world import SECOND_NS, Belt, World, draw, wire_count

speeds = st.floats(1.0, 200.0)
START_NS = 7 * SECOND


def belt(parts_per_s: float = 10.0, counts_per_s: int = 2000, seed: int = 1, parts: int | None = None) -> Belt:
    return Belt(seed, parts_per_s, counts_per_s, parts)


def moving(**words: float) -> Belt:
    it = belt(**words)  # type: ignore[arg-type]
    it.begin(START_NS)
    return it


@given(speeds, st.integers(100, 20_000), st.integers(0, 2**31 - 1), st.integers(0, 100_000))
def test_parts_are_never_closer_than_sixty_percent_of_the_pitch(
    parts_per_s: float, counts_per_s: int, seed: int, index: int
) -> None:
    it = belt(parts_per_s, counts_per_s, seed)
    gap = it.eye_counts(index + 1) - it.eye_counts(index)
    assert 0.6 * it.pitch_counts - 1 <= gap <= 1.4 * it.pitch_counts + 1


@given(speeds, st.integers(100, 20_000), st.integers(0, 10_000))
def test_encoder_stands_exactly_at_the_eye_count_when_the_part_is_there(
    parts_per_s: float, counts_per_s: int, index: int
) -> None:
    it = belt(parts_per_s, counts_per_s)
    assert it.eye_ns(index) is None
    it.begin(START_NS)
    moment = it.eye_ns(index)
    assert moment is not None
    assert it.encoder_at(moment) == it.eye_counts(index)
    assert it.encoder_at(moment - 1) == it.eye_counts(index) - 1
    assert it.index_at(moment - 1) <= index < it.index_at(moment)


def test_belt_stands_until_it_begins_and_begins_once() -> None:
    it = belt()
    assert it.encoder_at(START_NS) == it.encoder_at(10 * START_NS) == it.first_count
    it.begin(START_NS)
    it.begin(2 * START_NS)
    assert it.encoder_at(START_NS + SECOND) == it.first_count + 2000


def test_every_run_crosses_the_wrap_of_the_encoder() -> None:
    it = moving()
    assert wire_count(it.eye_counts(0)) > 2**31
    assert wire_count(it.eye_counts(100)) < 2**31


def test_number_of_parts_bounds_the_belt() -> None:
    it = belt(parts=3)
    assert [it.has_part(n) for n in (-1, 0, 2, 3)] == [False, True, True, False]
    assert belt().has_part(10**9)


def test_belt_is_clear_when_the_last_part_is_past_the_gate() -> None:
    it = belt(parts=3)
    assert not it.is_clear(START_NS, 1000)
    it.begin(START_NS)
    last_ns = it.eye_ns(2)
    assert last_ns is not None
    assert not it.is_clear(last_ns + SECOND // 2, 1000)
    assert it.is_clear(last_ns + SECOND // 2 + SECOND // 1000, 1000)


def test_feeder_that_ends_keeps_the_parts_that_passed_and_adds_none() -> None:
    it = moving()
    fifth_ns = it.eye_ns(4)
    assert fifth_ns is not None
    it.switch.end_feed(fifth_ns + 1)
    assert it.has_part(4) and not it.has_part(5)
    assert not it.is_clear(fifth_ns, 1000)
    assert it.is_clear(fifth_ns + SECOND, 1000)


def test_bad_days_come_from_the_seed_and_the_part_alone() -> None:
    world = World(belt(seed=5), drop_frames=0.25)
    dropped = [world.is_dropped(n) for n in range(4000)]
    assert dropped == [world.is_dropped(n) for n in range(4000)]
    assert 0.22 < sum(dropped) / 4000 < 0.28
    assert dropped != [World(belt(seed=6), drop_frames=0.25).is_dropped(n) for n in range(4000)]


def test_draws_for_neighbouring_parts_seeds_and_questions_are_unrelated() -> None:
    pairs = [(draw(s, i, q), draw(s + ds, i + di, q + dq)) for s in range(20) for i in range(50) for q in range(2)
             for ds, di, dq in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]  # fmt: skip
    mean = sum((a - 0.5) * (b - 0.5) for a, b in pairs) / len(pairs)
    assert abs(mean) < 0.005


def test_camera_is_silent_from_a_part_for_a_number_of_parts() -> None:
    world = World(camera_stops_at=3, camera_stops_for=2)
    assert [world.is_silent(n) for n in range(6)] == [False, False, True, True, False, False]
    assert not any(World(camera_stops_for=9).is_silent(n) for n in range(20))


def test_light_and_focus_drift_with_the_parts() -> None:
    world = World(light=1.2, light_drift=-0.5, focus_drift_px=2.0)
    assert world.light_at(0) == pytest.approx(1.2)
    assert world.light_at(1000) == pytest.approx(0.6)
    assert world.light_at(100_000) == pytest.approx(0.01)
    assert world.focus_px_at(500) == pytest.approx(1.0)


def test_config_becomes_a_world() -> None:
    cfg = WorldConfig.model_validate({"seed": 9, "parts_per_s": 20, "bad_days": {"camera_stops_at": 4}})
    world = World.from_config(cfg, parts=5)
    assert world.belt == replace(Belt(), seed=9, parts_per_s=20.0, parts=5)
    assert world.camera_stops_at == 4


def test_world_is_light_enough_for_the_controllers_process() -> None:
    code = (
        "import sys, edge_runtime.simulation.world, edge_runtime.simulation.renderer; "
        "print([m for m in ('numpy', 'cv2', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_held_belt_goes_on_where_it_stopped():
    belt = Belt(seed=3, parts_per_s=10.0, counts_per_s=2000)
    belt.begin(SECOND_NS)
    belt.switch.hold(3 * SECOND_NS)
    at_hold = belt.encoder_at(3 * SECOND_NS)
    assert belt.encoder_at(60 * SECOND_NS) == at_hold
    assert belt.index_at(60 * SECOND_NS) == belt.index_at(3 * SECOND_NS)
    before = belt.index_at(3 * SECOND_NS)
    belt.switch.resume(63 * SECOND_NS)
    assert belt.encoder_at(63 * SECOND_NS) == at_hold
    assert belt.encoder_at(64 * SECOND_NS) == at_hold + 2000
    assert belt.index_at(64 * SECOND_NS) > before
    assert belt.eye_ns(before) > 63 * SECOND_NS


def test_a_belt_that_never_moved_cannot_be_held():
    belt = Belt()
    belt.switch.hold(5)
    belt.begin(10)
    assert belt.encoder_at(10 + SECOND_NS) == belt.first_count + belt.counts_per_s


def test_lamp_lens_and_camera_fail_for_the_parts_that_are_told() -> None:
    bad = {
        "lamp_fails_at": 3, "lamp_fails_for": 2, "lamp_left": 0.1, "blurred_at": 5, "blurred_for": 1,
        "camera_freezes_at": 2, "camera_freezes_for": 3,
    }  # fmt: skip
    world = World.from_config(WorldConfig.model_validate({"light": 0.5, "bad_days": bad}))
    assert [world.light_at(index) for index in range(6)] == [0.5, 0.5, 0.05, 0.05, 0.5, 0.5]
    assert [world.focus_px_at(index) for index in range(6)] == [0, 0, 0, 0, 8.0, 0]
    assert [world.is_frozen(index) for index in range(6)] == [False, True, True, True, False, False]


def test_lamp_flickers_on_the_share_of_parts_that_is_told() -> None:
    world = World.from_config(WorldConfig.model_validate({"bad_days": {"lamp_flicker": 0.3, "lamp_left": 0.0}}))
    dark = sum(world.light_at(index) == 0.0 for index in range(1000))
    assert 240 < dark < 360
