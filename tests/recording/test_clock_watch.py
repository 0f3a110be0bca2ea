"""What counts as a step of the wall clock, and when the clock is believed again."""

from __future__ import annotations

import pytest

from edge_runtime.core.clock import SECOND
from edge_runtime.recording.clock_watch import DAY_NS, MINUTE_NS, STEADY_NS, ClockWatch, date, span

UTC_NS = 1_795_000_000 * SECOND
LOOK_NS = 10 * SECOND


def watched(until_ns: int, watch: ClockWatch | None = None) -> ClockWatch:
    """One that has looked at a good clock every 10 s since monotonic 0."""
    watch = watch or ClockWatch({}, has_same_boot=False)
    for now_ns in range(0, until_ns + 1, LOOK_NS):
        assert watch.look(now_ns, UTC_NS + now_ns, "synced") is None
    return watch


def test_a_good_clock_is_believed_after_an_hour() -> None:
    assert watched(STEADY_NS // 2).trouble == "the clock has been steady for 30 min of 1 h"
    assert watched(STEADY_NS - LOOK_NS).trouble
    assert watched(STEADY_NS).trouble == ""


@pytest.mark.parametrize("by_s", [3, -3, 3600, -3600, 500 * 86_400, -800 * 86_400, 80 * 365 * 86_400])
def test_a_step_is_told_once_and_the_clock_believed_an_hour_later(by_s: int) -> None:
    watch = watched(STEADY_NS)
    stepped_ns = STEADY_NS + LOOK_NS
    step = watch.look(stepped_ns, UTC_NS + stepped_ns + by_s * SECOND, "synced")
    assert step is not None and step.to_utc_ns - step.from_utc_ns == by_s * SECOND
    assert step.detail()["where"] == "running" and watch.trouble
    for now_ns in range(stepped_ns + LOOK_NS, stepped_ns + STEADY_NS, LOOK_NS):
        assert watch.look(now_ns, UTC_NS + now_ns + by_s * SECOND, "synced") is None
        assert "the clock stepped" in watch.trouble
    watch.look(stepped_ns + STEADY_NS, UTC_NS + stepped_ns + STEADY_NS + by_s * SECOND, "synced")
    is_plausible = by_s < 70 * 365 * 86_400
    assert (watch.trouble == "") is is_plausible


@pytest.mark.parametrize("ppm", [500, -500, 0])
def test_what_a_time_server_slews_is_no_step(ppm: int) -> None:
    watch = ClockWatch({}, has_same_boot=False)
    for now_ns in range(0, 2 * DAY_NS, MINUTE_NS):
        assert watch.look(now_ns, UTC_NS + now_ns + now_ns * ppm // 1_000_000, "synced") is None
    assert watch.trouble == ""


@pytest.mark.parametrize("ppm", [20_000, -50_000, 1_000_000])
def test_a_clock_that_runs_away_is_never_believed(ppm: int) -> None:
    watch = ClockWatch({}, has_same_boot=False)
    for now_ns in range(0, DAY_NS, LOOK_NS):
        watch.look(now_ns, UTC_NS + now_ns + now_ns * ppm // 1_000_000, "synced")
        assert watch.trouble


@pytest.mark.parametrize(
    ("has_same_boot", "passed_ns", "wall_ns", "where"),
    [
        (True, 5 * MINUTE_NS, 5 * MINUTE_NS, ""),
        (True, 5 * MINUTE_NS, 500 * DAY_NS, "restart"),
        (True, 5 * MINUTE_NS, 0, "restart"),
        (False, 0, 3 * DAY_NS, ""),
        (False, 0, -MINUTE_NS, "reboot"),
        (False, 0, 500 * DAY_NS, "reboot"),
    ],
)
def test_the_next_run_compares_with_the_last(has_same_boot: bool, passed_ns: int, wall_ns: int, where: str) -> None:
    mark = watched(STEADY_NS).mark()
    watch = ClockWatch(mark, has_same_boot)
    now_ns = STEADY_NS + passed_ns if has_same_boot else 5 * SECOND
    step = watch.look(now_ns, UTC_NS + STEADY_NS + wall_ns, "synced")
    assert (step.where if step else "") == where
    assert (watch.trouble == "") is (has_same_boot and not where)  # an hour counts over a restart, not over a reboot


@pytest.mark.parametrize("mark", [{"seen_ns": "x"}, {"seen_ns": 1, "seen_utc_ns": None}, {"steady_ns": 4}])
def test_a_mark_that_makes_no_sense_is_none(mark: dict[str, object]) -> None:
    assert ClockWatch(mark, has_same_boot=True).look(0, UTC_NS, "synced") is None


def test_times_in_words() -> None:
    assert [span(ns) for ns in (SECOND // 2, 90 * SECOND, 7200 * SECOND, 500 * DAY_NS)] == [
        "0.5 s",
        "1.5 min",
        "2 h",
        "500 d",
    ]
    assert date(-SECOND) == "1969-12-31T23:59:59Z" and date(2**70) == "1180591620717 s since 1970"
