"""Two boxes of one name: noticed, named, and spaced, by brokers that say why and by brokers that just close."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND
from edge_runtime.flow.components import State
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.mqtt.rival import BUSY, FIRST_S, IDLE, MOST_S, STUCK, Rival
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Line, config


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_boxes_of_one_name_say_so_and_take_turns(mosquitto: Broker, tmp_path: Path, closing, protocol: str) -> None:
    boxes = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        line = Line(folder)
        closing.callback(line.stop)
        line.parts(3)
        sync = Delivery(config(folder, mosquitto.port, protocol=protocol))
        closing.callback(sync.stop)
        sync.start()
        boxes.append(sync)
    until(lambda: all("two boxes with the same site, line and name" in box.health().detail for box in boxes))
    assert all(box.health().state is State.DEGRADED for box in boxes)
    assert all("edge-box-7" in box.health().detail for box in boxes)
    before = [box.report()["link"]["connects"] for box in boxes]
    assert max(before) <= 12
    until(lambda: max(box.report()["link"]["takeovers"] for box in boxes) >= 2)


def test_it_is_over_when_the_other_one_is_gone(
    mosquitto: Broker, tmp_path: Path, line: Line, start_sync, closing
) -> None:
    sync = start_sync(mosquitto.port, protocol="3.1.1")
    other = Delivery(config(tmp_path / "other", mosquitto.port, protocol="3.1.1"))
    (tmp_path / "other").mkdir()
    other.start()
    until(lambda: "another client uses the client id" in sync.health().detail)
    other.stop()
    until(lambda: sync.link.is_up and not sync.link.rival.is_known)
    assert "another client" not in sync.health().detail


def test_a_broker_that_says_so_is_believed_at_once() -> None:
    rival = Rival("edge-box-7", random.Random(1))
    assert rival.trouble() == "" and rival.wait_s() == 0
    rival.taken_over()
    assert "says the broker" in rival.trouble() and FIRST_S / 2 <= rival.wait_s() <= FIRST_S


@given(st.lists(st.sampled_from([IDLE, BUSY, STUCK]), max_size=40), st.integers(0, 2**32))
def test_waits_grow_and_end_only_with_a_connection_that_held(clues: list[float], seed: int) -> None:
    rival, waits = Rival("x", random.Random(seed)), list[float]()
    for clue in clues:
        rival.closed(SECOND, clue)
        waits.append(rival.wait_s())
        assert rival.is_known is (rival.wait_s() > 0)
    known = [wait for wait in waits if wait]
    for number, wait in enumerate(known):
        ceiling = min(MOST_S, FIRST_S * 2**number)
        assert ceiling / 2 <= wait <= ceiling
    last = rival.wait_s()
    rival.held(round(1.9 * last * SECOND))
    assert rival.is_known is bool(known)
    rival.held(round(2.1 * last * SECOND) + 31 * SECOND)
    assert not rival.is_known and rival.wait_s() == 0


@given(st.lists(st.integers(31, 10_000), max_size=30))
def test_a_broker_that_is_restarted_now_and_then_is_no_rival(lives_s: list[int]) -> None:
    rival = Rival("x", random.Random(1))
    for life in lives_s:
        rival.closed(life * SECOND, IDLE)
        assert not rival.is_known
