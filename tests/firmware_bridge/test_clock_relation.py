"""Relating clocks: drift, wrap, outliers, and what a busy host does to round trips."""

from __future__ import annotations

from random import Random

import pytest

from firmware_bridge.reject.clock_relation import ClockRelation

MS = 1_000_000


def _run(relation, *, ppm, start_us, seconds, rng, busy=0.0, begin=10**15):
    """Exchanges each 100 ms; the controller is asked after a short way and answers after a short way back."""
    truth = lambda now: (start_us + int((now - begin) * (1 + ppm * 1e-6)) // 1000) % 2**32  # noqa: E731
    now = begin
    for _ in range(round(10 * seconds)):
        now += 100 * MS
        out, back = rng.randrange(200_000, 400_000), rng.randrange(200_000, 400_000)
        if rng.random() < busy:
            back += rng.randrange(5 * MS, 40 * MS)
        relation.add(truth(now + out), now, now + out + back)
    return truth, now


@pytest.mark.parametrize("ppm", [0, 300, -300, 5000, -5000])
@pytest.mark.parametrize("start_us", [0, 2**32 - 1_000_000, 2**31])
def test_moments_are_found_to_a_fifth_of_a_millisecond(ppm, start_us):
    relation = ClockRelation()
    truth, now = _run(relation, ppm=ppm, start_us=start_us, seconds=20, rng=Random(3))
    for ago_ms in (0, 5, 100, 1000):
        at = now - ago_ms * MS
        assert abs(relation.host_ns(truth(at), now) - at) < 0.2 * MS


def test_a_busy_host_costs_little():
    relation = ClockRelation()
    truth, now = _run(relation, ppm=200, start_us=7, seconds=20, rng=Random(4), busy=0.7)
    assert abs(relation.host_ns(truth(now - 50 * MS), now) - (now - 50 * MS)) < 0.3 * MS
    assert abs(relation.drift_ppm + 200) < 60


def test_the_first_exchange_is_enough_for_a_start_and_none_is_none():
    relation = ClockRelation()
    assert relation.host_ns(123, 10**12) is None
    relation.add(1000, 10**12, 10**12 + 2 * MS)
    assert relation.host_ns(1000, 10**12 + 5 * MS) == 10**12 + MS


def test_a_moment_is_never_in_the_future():
    relation = ClockRelation()
    relation.add(1000, 10**12, 10**12 + 2 * MS)
    assert relation.host_ns(900_000, 10**12 + 3 * MS) == 10**12 + 3 * MS


def test_an_hour_of_silence_does_not_confuse_the_wrap():
    relation = ClockRelation()
    truth, now = _run(relation, ppm=100, start_us=0, seconds=10, rng=Random(5))
    later = now + 100 * 60 * 1000 * MS  # more than one wrap of 71 minutes
    assert abs(relation.host_ns(truth(later), later + MS) - later) < 100 * MS


def test_an_exchange_that_ends_before_it_began_is_ignored():
    relation = ClockRelation()
    relation.add(1, 100, 50)
    assert len(relation) == 0
