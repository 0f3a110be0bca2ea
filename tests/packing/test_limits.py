"""Limits from samples: what they cost is what was wanted, and what is said of them is what samples can show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.packing.limits import choose_limit, good_needed, limit_at

SCORES = st.lists(st.floats(0.0, 1.0), min_size=5, max_size=60)


@settings(max_examples=40, deadline=None)
@given(SCORES, st.lists(st.floats(0.0, 1.0), max_size=30), st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5]))
def test_a_limit_costs_no_more_good_samples_than_wanted(good, bad, wanted):
    limit = choose_limit(good, bad, wanted)
    assert limit is not None and 0.0 <= limit.at <= 1.0
    if sorted(good)[-1 - math.floor(wanted * len(good))] < 1.0:
        assert limit.over <= wanted * len(good) + 1e-9
    low, high = limit.over_interval
    assert low <= limit.over / limit.good <= high
    assert limit.is_shown == (high <= wanted)


@settings(max_examples=40, deadline=None)
@given(SCORES, st.floats(0.001, 0.4))
def test_where_good_and_bad_lie_apart_nothing_is_missed_and_nothing_costs(good, gap):
    good = [score * 0.5 for score in good]
    bad = [max(good) + gap, 1.0]
    limit = choose_limit(good, bad, 0.01)
    assert limit is not None and limit.over == 0 and limit.missed == 0
    assert limit.at - max(good) == pytest.approx(gap / 2, abs=1e-3)


def test_few_good_samples_choose_nothing_and_some_say_how_few_they_are():
    assert choose_limit([0.1] * 4, [0.9], 0.01) is None
    few = choose_limit([0.1] * 20, [], 0.01)
    assert few is not None
    said = " ".join(few.sentences())
    assert "0 of 20 good samples (95 %: 0.0% to 16.8%)" in said
    assert "too few to show 1.00%: that takes 368 good samples" in said and "is not known" in said
    enough = choose_limit([0.1] * 368, [0.9] * 10, 0.01)
    assert enough is not None and enough.is_shown
    assert "misses 0 of 10 bad samples (95 %: 0.0% to 30.8%)" in enough.sentences()


def test_good_that_looks_like_bad_is_told():
    limit = choose_limit([1.0] * 3 + [0.2] * 7, [1.0], 0.01)
    assert limit is not None and limit.over == 3
    assert "good and bad look alike to it" in " ".join(limit.sentences())


@pytest.mark.parametrize("wanted", [0.001, 0.01, 0.05, 0.3])
def test_as_many_as_are_asked_for_show_it_and_one_fewer_do_not(wanted):
    count = good_needed(wanted)
    assert limit_at(0.5, [0.0] * count, [], wanted).is_shown
    assert not limit_at(0.5, [0.0] * (count - 1), [], wanted).is_shown


def test_the_upper_end_holds_for_limits_chosen_from_the_very_samples():
    """True over-reject of a chosen limit, over 500 draws of uniform scores: under the upper end in 97.5 % of them."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(500):
        limit = choose_limit(draw.random(30).tolist(), [], 0.1)
        assert limit is not None
        held += (1.0 - limit.at) <= limit.over_interval[1]
    assert held / 500 >= 0.975 - 3 * math.sqrt(0.975 * 0.025 / 500)
