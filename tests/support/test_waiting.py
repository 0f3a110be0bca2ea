"""A wait gives back what it waited for, and says what it waited for in vain."""

from __future__ import annotations

import pytest

from tests.support.waiting import seconds_until, until


def test_a_wait_gives_back_the_first_true_answer() -> None:
    answers = iter([0, "", "there", "later"])
    assert until(lambda: next(answers)) == "there"


def test_a_wait_in_vain_tells_its_story_of_that_moment() -> None:
    looks: list[int] = []
    with pytest.raises(AssertionError, match=r"within 0\.02 s: the story of \d+ looks"):
        until(lambda: looks.append(1), within_s=0.02, why=lambda: f"the story of {len(looks)} looks")
    with pytest.raises(AssertionError, match="the broker"):
        until(lambda: False, within_s=0.01, why="the broker")


def test_a_wait_can_be_timed() -> None:
    answers = iter([False, False, True])
    assert 0.0 < seconds_until(lambda: next(answers)) < 5.0
