"""The promises of the tests, by simulation with every look taken, and by a way of computing of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_runtime.modelstore.rollout import sequential
from edge_runtime.modelstore.rollout.sequential import is_ruled_out, log_e_not_worse, log_e_worse, rate_bounds

LOOKS = 120
STREAMS = 2000


def worse_table() -> np.ndarray:
    """Evidence by (candidate wrong, active wrong), for simulations."""
    table = np.full((LOOKS + 1, LOOKS + 1), -np.inf)
    for wrong in range(LOOKS + 1):
        for right in range(LOOKS + 1 - wrong):
            table[wrong, right] = log_e_worse(wrong, right)
    return table


TABLE = worse_table()


@pytest.mark.parametrize("chance", [0.5, 0.4])
def test_an_equal_or_better_candidate_is_called_worse_in_at_most_5_percent_with_a_look_after_each_label(chance):
    wrong = (np.random.default_rng(3).random((STREAMS, LOOKS)) < chance).cumsum(axis=1)
    evidence = TABLE[wrong, np.arange(1, LOOKS + 1) - wrong]
    assert (evidence >= math.log(20)).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize("chance", [0.5, 0.3])
def test_evidence_against_the_candidate_is_never_expected_to_grow_where_it_is_not_worse(chance):
    """The supermartingale itself, exactly: the mean over the next label, from every pair of counts."""
    grown = chance * np.exp(TABLE[1:, :-1]) + (1 - chance) * np.exp(TABLE[:-1, 1:])
    here = np.exp(TABLE[:-1, :-1])
    reached = np.add.outer(np.arange(LOOKS), np.arange(LOOKS)) < LOOKS
    assert (grown[reached] <= here[reached] * (1 + 1e-9)).all()


def test_evidence_starts_at_none_and_three_wrong_in_four_are_found():
    assert log_e_worse(0, 0) == pytest.approx(0.0)
    wrong = (np.random.default_rng(4).random((STREAMS, LOOKS)) < 0.75).cumsum(axis=1)
    assert (TABLE[wrong, np.arange(1, LOOKS + 1) - wrong] >= math.log(25)).any(axis=1).mean() >= 0.95


def test_evidence_of_worse_is_the_integral_that_it_says():
    chances = np.linspace(0.5, 1.0, 200_001)
    prior = chances**sequential.PRIOR_WRONG * (1 - chances) ** sequential.PRIOR_RIGHT
    ratio = (chances / 0.5) ** 9 * ((1 - chances) / 0.5) ** 4
    assert log_e_worse(9, 4) == pytest.approx(math.log((prior * ratio).sum() / prior.sum()), abs=1e-4)


@pytest.mark.parametrize(("worse", "better"), [(0.015, 0.005), (0.02, 0.0), (0.06, 0.05)])
def test_evidence_of_not_worse_is_never_expected_to_grow_at_the_margin(worse, better):
    for parts, wrong, right in ((0, 0, 0), (500, 3, 2), (2000, 10, 20)):
        here = math.exp(log_e_not_worse(parts, wrong, right, 0.01))
        grown = (
            worse * math.exp(log_e_not_worse(parts + 1, wrong + 1, right, 0.01))
            + better * math.exp(log_e_not_worse(parts + 1, wrong, right + 1, 0.01))
            + (1 - worse - better) * math.exp(log_e_not_worse(parts + 1, wrong, right, 0.01))
        )
        assert grown <= here * (1 + 1e-9)


def test_an_unlabelled_disagreement_counted_as_the_candidates_error_only_takes_evidence_away():
    assert log_e_not_worse(800, 4, 3, 0.01) < log_e_not_worse(800, 3, 3, 0.01) < log_e_not_worse(800, 3, 4, 0.01)


@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_the_bounds_of_a_rate_leave_it_outside_in_at_most_5_percent_with_a_look_after_each_part(rate):
    looks, streams = 400, 300
    counts = (np.random.default_rng(5).random((streams, looks)) < rate).cumsum(axis=1)
    bounds: dict[tuple[int, int], tuple[float, float]] = {}
    left = 0
    for stream in counts:
        for at in range(0, looks, 10):
            key = (int(stream[at]), at + 1)
            low, high = bounds.setdefault(key, bounds.get(key) or rate_bounds(*key, 0.05))
            if not low <= rate <= high:
                left += 1
                break
    assert left / streams <= 0.05


def test_a_rate_is_ruled_out_just_where_the_bounds_end():
    low, high = rate_bounds(30, 1000, 0.05)
    for rate, is_out in ((low * 0.999, True), (low * 1.001, False), (high * 0.999, False), (high * 1.001, True)):
        assert is_ruled_out(rate, 30, 1000, 0.05) is is_out


def test_bounds_of_nothing_seen_are_everything_and_shut_in_what_was_seen():
    assert rate_bounds(0, 0, 0.05) == (0.0, 1.0)
    low, high = rate_bounds(30, 1000, 0.05)
    assert 0.01 < low < 0.03 < high < 0.06
    assert rate_bounds(5, 5, 0.05)[1] == 1.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: log_e_worse(-1, 0),
        lambda: rate_bounds(3, 2, 0.05),
        lambda: log_e_not_worse(3, 2, 2, 0.01),
        lambda: log_e_not_worse(3, 0, 0, 0.0),
    ],
)
def test_impossible_counts_are_refused(ask):
    with pytest.raises(ValueError, match=r"\d"):
        ask()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of pandas, at how that library groups
@pytest.mark.parametrize(("candidate_rate", "is_worse"), [(0.01, False), (0.05, True)])
def test_a_group_sequential_z_test_of_another_library_finds_the_same(candidate_rate, is_worse):
    """spotify-confidence spends its error over looks fixed beforehand; clear cases must come out alike."""
    confidence = pytest.importorskip("spotify_confidence", reason="spotify-confidence is not installed")
    pandas = pytest.importorskip("pandas")
    looks, each = 4, 1000
    rng = np.random.default_rng(6)
    active, candidate = rng.random(looks * each) < 0.01, rng.random(looks * each) < candidate_rate
    rows = [
        {
            "who": who,
            "look": n,
            "wrong": int(errors[: n * each].sum()),
            "parts": n * each,
            "final": looks * each,
        }
        for n in range(1, looks + 1)
        for who, errors in (("active", active), ("candidate", candidate))
    ]
    test = confidence.ZTest(
        pandas.DataFrame(rows), "wrong", None, "parts", categorical_group_columns="who", ordinal_group_column="look"
    )
    found = test.difference("active", "candidate", groupby="look", final_expected_sample_size_column="final")
    ours = log_e_worse(int((candidate & ~active).sum()), int((active & ~candidate).sum())) >= math.log(20)
    assert bool(found["is_significant"].any()) is ours is is_worse
