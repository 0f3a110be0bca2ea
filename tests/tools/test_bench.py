"""The benches run and print what they promise. Nothing here judges a time: the machine may be busy."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from edge_runtime.commissioning.bench_line import PAUSE_S, Schedule, ScheduleBelt, ramp
from edge_runtime.simulation.world import LEAD_S

ROOT = Path(__file__).parents[2]
LIMIT_S = 240


def run(*words: object) -> object:
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hot_path_compares_line_and_floor_and_both_decide_alike(make_bundle):
    rows = run(ROOT / "tools/bench/hot_path", "--quick", "--json", "--model", make_bundle().folder)
    assert [row["rate"] for row in rows] == [10, 20, 30]
    for row in rows:
        for side in ("floor", "line", "ratio"):
            assert set(row[side]) == {"p50", "p99"}
            assert all(value > 0 for value in row[side].values())
        assert row["unaccounted"] == 0
        assert row["disagree"] == 0


def test_disturbance_tells_what_a_command_costs_and_what_the_line_alone_loses():
    words = ("--json", "--seconds", "1", "--rounds", "1", "--only", "doctor", "--only", "status x16")
    rows = run(ROOT / "tools/bench/disturbance", *words)
    assert [row["command"] for row in rows] == ["(line alone)", "doctor", "status x16"]
    for row in rows:
        assert row["parts"] > 0
        assert row["not_by_model"] == sum(row["causes"].values()) <= row["parts"]
        assert row["share"] == pytest.approx(100 * row["not_by_model"] / row["parts"], abs=0.01)
        assert row["floor_share"] == rows[0]["share"]


def test_bench_command_prints_one_document_and_leaves_nothing_behind(tmp_path, make_bundle):
    make_bundle()
    state = tmp_path / "state"
    settings = {"recording.state_dir": state, "model.store": tmp_path / "bundles", "model.name": "tiny-heatmap"}
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    document = run("-m", "edge_runtime", "--config", "embedded", *pairs, "bench", "--quick", "--json")
    assert set(document) == {"box", "model", "line", "journal", "serial", "disk", "limit"}
    assert document["line"]["unaccounted"] == 0
    assert list(state.iterdir()) == []


def test_line_and_floor_take_turns_and_never_overlap():
    schedule = Schedule(20.0, per_turn=10, turns=4)
    order = sorted((schedule.turn(number, is_line), is_line) for number in range(4) for is_line in (True, False))
    assert [is_line for _, is_line in order] == [True, False, False, True, True, False, False, True]
    for ((_, end), _), ((begin, _), _) in pairwise(order):
        assert begin == pytest.approx(end)
    for index in range(schedule.parts):
        for is_line in (True, False):
            begin, end = schedule.turn(index // 10, is_line)
            assert begin < schedule.eye_s(index, is_line) < schedule.frame_s(index, is_line) < end - 0.9 * PAUSE_S


@pytest.mark.parametrize("rate", [10.0, 20.0, 30.0])
def test_frames_come_in_the_order_of_their_parts(rate):
    schedule = Schedule(rate, per_turn=300)
    due = [schedule.frame_s(index) for index in range(300)]
    assert due == sorted(due)


def test_a_ramp_grows_from_a_quarter_to_four_times_of_what_the_model_could_do():
    schedule = ramp(part_ms=10.0, seconds=5.0)
    assert schedule.rate_at(0) == pytest.approx(25.0)
    assert schedule.rate_at(schedule.parts - 1) == pytest.approx(400.0, rel=0.02)
    assert schedule.eye_s(schedule.parts - 1) - LEAD_S == pytest.approx(5.0, rel=0.05)
    spacing = [schedule.eye_s(index + 1) - schedule.eye_s(index) for index in range(schedule.parts - 1)]
    assert min(spacing) > 0


def test_a_slow_or_a_very_fast_model_still_gets_a_ramp():
    for part_ms in (0.1, 3000.0):
        schedule = ramp(part_ms, seconds=2.0)
        assert 0 < schedule.rate_at(0) < schedule.rate_at(schedule.parts - 1) <= 500


def test_the_belt_carries_the_schedule():
    schedule = Schedule(10.0, per_turn=5, turns=2)
    belt = ScheduleBelt(parts=schedule.parts, schedule=schedule)
    counts = [belt.eye_counts(index) - belt.first_count for index in range(schedule.parts)]
    assert counts == [int(schedule.eye_s(index) * belt.counts_per_s) for index in range(schedule.parts)]
    assert belt.has_part(9)
    assert not belt.has_part(10)


def test_rollout_keeps_its_promises_with_a_look_after_every_part():
    rows = run(ROOT / "tools/bench/rollout", "--quick", "--json")
    assert {row["kept"] for row in rows} == {True, None}
    for row in rows:
        assert row["passed"] + row["failed"] + row["inconclusive"] == pytest.approx(1.0)


def test_updates_and_switches_killed_at_any_instant_leave_one_model_that_runs_and_lose_no_release():
    (row,) = run(ROOT / "tools/bench/update_kill", "--kills", "4", "--json")
    assert row["kills"] >= 4
    assert (row["faults"], row["lost"]) == ([], 0)
