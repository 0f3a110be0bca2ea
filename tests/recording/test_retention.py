"""Nothing young is ever deleted for its age, whatever the clocks say; with a good clock what is old does go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND
from edge_runtime.core.messages import PartKey
from tests.recording.clock_world import DAY, HOUR, KEEP_DAYS, TRUE_START_NS, World, keep_ns

ALL_KINDS = {"part", "event", "request", "label", "accept", "reject", "clips"}
YEAR_1970, YEAR_2038, YEAR_2106 = 0, 2**31 * SECOND, 2**32 * SECOND


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.close()


def jump(days: float) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.wall_off_ns += round(days * DAY)

    return act


def lie_for_a_day(world: World) -> None:
    jump(500)(world)
    world.live(DAY)


def drift_away(world: World) -> None:
    world.drift = 300.0
    world.live(DAY)
    world.drift = 0.0


def reboot_into(days: float) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.reboot()
        jump(days)(world)

    return act


HISTORIES: dict[str, Callable[[World], None]] = {
    "500 days ahead": jump(500),
    "800 days back": jump(-800),
    "5 days ahead": jump(5),
    "3 s ahead": jump(3 / 86_400),
    "1970": lambda world: world.show(YEAR_1970),
    "2038": lambda world: world.show(YEAR_2038),
    "2106": lambda world: world.show(YEAR_2106),
    "lies for a day and is called synchronised": lie_for_a_day,
    "runs 300 times too fast": drift_away,
    "ahead while run did not work": lambda world: (jump(500)(world), world.restart(HOUR)),  # type: ignore[func-returns-value]
    "ahead after a reboot": reboot_into(500),
    "back after a reboot": reboot_into(-800),
    "off for a year": lambda world: world.reboot(365 * DAY),
    "killed, and ahead after the reboot": lambda world: (world.reboot(killed=True), jump(500)(world)),  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("happens", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_wrong_clock_deletes_nothing(happens: Callable[[World], None], world: World) -> None:
    world.live(12 * HOUR, step_ns=HOUR)
    before = world.left()
    happens(world)
    for _ in range(20):  # a passing fault, and then one that stays until the clock counts as steady again
        world.pass_time(10 * SECOND)
        world.turn()
    world.live(6 * HOUR, step_ns=HOUR, parts=0)
    assert world.gone == {} and not before - world.left()


@pytest.mark.parametrize("days", [500, -800, 5])
def test_what_was_written_with_a_wrong_clock_stays_as_long_as_the_rest(days: float, world: World) -> None:
    world.live(12 * HOUR, step_ns=HOUR)
    jump(days)(world)
    world.live(6 * HOUR, step_ns=HOUR)
    jump(-days)(world)
    world.live(20 * DAY, step_ns=HOUR * 3, parts=0)
    assert all(age > keep_ns(name) for name, age in world.gone.items())
    assert world.kinds_gone() == ALL_KINDS


def test_with_a_good_clock_what_is_old_goes(world: World) -> None:
    world.live(DAY, step_ns=3 * HOUR)
    old = set(world.made)
    world.live(25 * DAY, step_ns=3 * HOUR, parts=0)
    assert old == set(world.gone) and world.kinds_gone() == ALL_KINDS
    assert min(age - keep_ns(name) for name, age in world.gone.items()) > 0
    assert world.events("retention.removed") > 0 and world.events("clock.stepped") == 0


def test_with_a_good_clock_what_is_old_goes_over_reboots_too(world: World) -> None:
    world.live(DAY, step_ns=3 * HOUR)
    old = set(world.made)
    for day in range(25):
        world.reboot(HOUR, killed=day % 3 == 0)
        world.live(DAY, step_ns=3 * HOUR, parts=0)
    assert {name for name in old if name.startswith("part")} <= set(world.gone)
    assert all(age > keep_ns(name) for name, age in world.gone.items())


def test_nothing_goes_while_nobody_vouches_for_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, synced=False)
    world.live(8 * DAY)
    assert world.gone == {} and world.retention.trouble == "retention waits: the clock is not synchronised"
    world.set_synced(True)
    world.live(8 * DAY)
    assert world.gone and world.retention.trouble == ""
    world.close()


def test_status_says_whether_old_things_go_and_what_went(world: World) -> None:
    assert world.retention.report()["says"] == "waits, the clock has been steady for 0 s of 1 h"
    world.live(8 * DAY)
    report = world.retention.report()
    assert report["says"] == "works, the clock is synchronised and steady"
    for what in ("part", "event", "request", "label", "pictures.accept", "pictures.reject", "clips"):
        assert report["removed"][what] == world.retention.removed[what] > 0


def test_a_picture_of_a_labelled_part_stays_as_long_as_the_label_stands(world: World) -> None:
    world.record(10)
    labelled = {name for name in world.made if name.endswith(("-2-accept.jpg", "-3-reject.jpg"))}
    for _ in range(3):
        for number in (2, 3):
            world.label(PartKey(1, number))
        world.live((KEEP_DAYS - 1) * DAY, parts=0)
    assert len(labelled) == 2 and not labelled & set(world.gone)
    assert {name for name in world.made if name.startswith("evidence/")} - labelled <= set(world.gone)
    world.live(8 * DAY, parts=0)
    assert labelled <= set(world.gone), "the label has gone for its age, and then they had no reason to stay"


def test_a_step_is_an_event_and_told_in_words(world: World) -> None:
    world.live(6 * HOUR)
    jump(500)(world)
    world.pass_time(10 * SECOND)
    world.turn()
    assert world.events("clock.stepped") == 1
    words = world.retention.words()
    assert words.startswith("waits, the clock stepped 500 d ahead, from 2026-11-") and "to 2028-" in words
    assert world.journal.report()["retention"]["says"] == words
    assert world.retention.trouble == f"retention {words.replace('waits,', 'waits:')}"


def test_a_clock_that_jumps_all_day_is_told_once_an_hour(world: World) -> None:
    for number in range(150):
        jump(10 if number % 2 else -10)(world)
        world.pass_time(60 * SECOND)
        world.turn()
    assert 2 <= world.events("clock.stepped") <= 4 and world.retention.steps >= 149


def test_rows_from_before_on_time_was_kept_count_as_made_at_the_first_run_after(world: World) -> None:
    world.live(DAY, step_ns=6 * HOUR)
    world.reboot()
    (world.state / "on_time.json").unlink()
    world.reboot(killed=True)
    old = {name for name in world.made if name.startswith("part")}
    world.live(KEEP_DAYS * DAY, parts=0)
    assert not old & set(world.gone)
    world.live(12 * DAY, parts=0)
    assert old <= set(world.gone)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"on_ns": "9"}', '{"on_ns": 1e99}', "\x00" * 300])
def test_a_damaged_file_of_on_time_makes_everything_young(content: str, world: World) -> None:
    world.live(3 * DAY, parts=1)
    already = set(world.gone)
    world.reboot()
    (world.state / "on_time.json").write_text(content)
    world.reboot(killed=True)
    world.live(DAY, parts=0)
    assert set(world.gone) == already


DAYS = st.one_of(st.sampled_from([500.0, -800.0, 3.0, 30.0, -30.0, 1 / 24, -1e-5]), st.floats(-900, 900))
OFF = st.sampled_from([0.0, 0.01, 1.0, 400.0])
ACTIONS = st.one_of(
    st.tuples(st.just("jump"), DAYS),
    st.tuples(st.just("jump"), DAYS),
    st.tuples(st.just("show"), st.sampled_from([YEAR_1970, YEAR_2038, YEAR_2106, TRUE_START_NS])),
    st.tuples(st.just("drift"), st.sampled_from([0.0, 0.0, 1e-5, -1e-3, 0.05, 10.0, -0.9])),
    st.tuples(st.just("synced"), st.sampled_from([0, 1, 1, 1])),
    st.tuples(st.just("restart"), OFF),
    st.tuples(st.just("reboot"), OFF),
    st.tuples(st.just("kill"), OFF),
)
STEPS = st.tuples(ACTIONS, st.sampled_from([0.01, 0.4, 1.0, 3.0]))  # what happens, and how many days follow


def happen(world: World, action: str, value: float) -> None:
    match action:
        case "jump":
            jump(value)(world)
        case "show":
            world.show(int(value))
        case "drift":
            world.drift = value
        case "synced":
            world.set_synced(bool(value))
        case "restart":
            world.restart(round(value * DAY))
        case "reboot" | "kill":
            world.reboot(round(value * DAY), killed=action == "kill")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(STEPS, min_size=2, max_size=8))
def test_no_history_of_clocks_deletes_what_is_young(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[tuple[str, float], float]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("box"), patch)
        world.live(DAY)
        for (action, value), days in history:
            happen(world, action, value)
            world.live(round(days * DAY), step_ns=max(HOUR, round(days * DAY / 8)))
        young = {name: age / DAY for name, age in world.gone.items() if age <= keep_ns(name)}
        world.close()
        assert not young
