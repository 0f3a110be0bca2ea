"""Histograms and moments add up exactly; run lengths are those of the literature; limits keep what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drift_streams import WEEK, Stream
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.monitoring.blocks import MOST_CORRELATION, block_means, lag_one
from edge_runtime.monitoring.calibration import (
    Baseline,
    Learning,
    cusum_limit,
    ewma_run_length,
    ewma_spreads,
    learn,
    parts_between,
)
from edge_runtime.monitoring.detector import Detector
from edge_runtime.monitoring.histogram import Bins, Histogram, ks, psi, w1
from edge_runtime.monitoring.moments import Moments
from edge_runtime.monitoring.override_rate import OverrideRate, audited_to_alarm, override_limits

PARTS = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40)


def counted(values: object, bins: Bins) -> Histogram:
    histogram = Histogram(bins)
    for value in np.asarray(values).tolist():
        histogram.add(value)
    return histogram


def armed(kind: str, seed: int) -> tuple[Stream, Detector]:
    stream = Stream(kind, seed)
    baseline = learn(stream.clean(2 * WEEK), parts_between(1.0, WEEK, 1))
    assert isinstance(baseline, Baseline)
    return stream, Detector(baseline)


@settings(max_examples=50, deadline=None)
@given(PARTS, PARTS)
def test_merged_histogram_is_that_of_all_values(one, other):
    for bins in (Bins(-10.0, 10.0), Bins(0.01, 1e4, is_log=True)):
        merged = counted(one, bins)
        merged.merge(counted(other, bins))
        together = counted([*one, *other], bins)
        assert (merged.counts, merged.not_finite) == (together.counts, together.not_finite)
        assert merged.total + merged.not_finite == len(one) + len(other)


@settings(max_examples=50, deadline=None)
@given(*2 * [st.lists(st.floats(-1e6, 1e6), max_size=40)])
def test_merged_moments_are_those_of_all_values(one, other):
    merged, second = Moments(), Moments()
    for value in one:
        merged.add(value)
    for value in other:
        second.add(value)
    merged.merge(second)
    every = [*one, *other]
    assert merged.count == len(every)
    if len(every) > 1:
        assert merged.mean == pytest.approx(np.mean(every), abs=1e-6)
        assert merged.variance == pytest.approx(np.var(every, ddof=1), rel=1e-6, abs=1e-6)


def test_distances_of_twenty_merged_boxes_are_within_a_tenth_of_the_exact_ones():
    rng = np.random.default_rng(3)
    before, after = rng.normal(100, 10, (20, 1000)), rng.normal(106, 12, (20, 1000))
    bins = Bins(40.0, 180.0)
    fleet = []
    for boxes in (before, after):
        fleet.append(Histogram(bins))
        for box in boxes:
            fleet[-1].merge(counted(box, bins))
    ordered = [np.sort(values.ravel()) for values in (before, after)]
    every = np.sort(np.concatenate(ordered))
    exact_ks = np.abs(np.subtract(*(np.searchsorted(values, every, "right") / 20_000 for values in ordered))).max()
    assert ks(*fleet) == pytest.approx(exact_ks, rel=0.1)
    assert w1(*fleet) == pytest.approx(np.abs(ordered[0] - ordered[1]).mean(), rel=0.1)
    exact_psi = (144 + 36) / 200 + (100 + 36) / 288 - 1.0  # divergence of the two normals, both ways
    assert psi(*fleet) == pytest.approx(exact_psi, rel=0.1)
    assert psi(fleet[0], fleet[0]) == ks(fleet[0], fleet[0]) == w1(fleet[0], fleet[0]) == 0.0


def test_histograms_of_other_bins_and_empty_ones_are_refused():
    with pytest.raises(ValueError, match="different bins"):
        Histogram(Bins(0.0, 1.0)).merge(Histogram(Bins(0.0, 2.0)))
    with pytest.raises(ValueError, match="empty histogram"):
        psi(Histogram(Bins(0.0, 1.0)), Histogram(Bins(0.0, 1.0)))
    with pytest.raises(ValueError, match="give low > 0"):
        Bins(0.0, 1.0, is_log=True)


def test_limits_are_those_of_the_literature():
    assert cusum_limit(1.0, 465) == pytest.approx(5.0, abs=0.05)  # k 0.5, h 5: Montgomery, table 9.3
    assert ewma_run_length(2.615) == pytest.approx(500, rel=0.02)  # weight 0.05: Lucas and Saccucci, table 3
    assert ewma_run_length(ewma_spreads(100_000)) == pytest.approx(100_000, rel=0.01)


def test_too_little_reference_is_not_armed_and_says_what_is_missing():
    few = learn(Stream("independent", 1).clean(60), 1e5)
    assert few == Learning(60, 100, "40 more clean parts")
    short = learn(Stream("ar1_0.98", 1).clean(5000), 1e5)
    assert isinstance(short, Learning)
    assert short.needed is not None and short.needed > 5000
    assert f"{short.needed - 5000} more clean parts" in short.missing


def test_a_reference_that_never_varies_is_not_armed():
    assert isinstance(learn(np.full(1000, 7.0), 1e5), Learning)


@pytest.mark.parametrize("kind", ["independent", "ar1_0.9"])
def test_blocks_are_long_enough_that_their_means_hang_together_little(kind):
    stream, detector = armed(kind, 5)
    assert lag_one(block_means(stream.clean(2 * WEEK), detector.baseline.block)) < MOST_CORRELATION + 0.1
    assert (detector.baseline.block > 1) == (kind != "independent")


def test_clean_weeks_keep_three_tenths_of_the_promise_and_a_change_is_found():
    found, weeks = 0, 4
    for seed in range(5):
        stream, detector = armed("ar1_0.9", seed)
        found += len(detector.extend(stream.clean(weeks * WEEK)))
        drifts = detector.extend(stream.changed(2.0, WEEK))
        assert drifts
        assert drifts[0].values - weeks * WEEK < WEEK / 5
    assert found * 0.3 <= 5 * weeks


def test_one_at_a_time_and_many_at_once_say_the_same():
    stream, one = armed("ar1_0.9", 9)
    many = Detector(one.baseline)
    values = stream.changed(1.0, 4321)
    values[::97] = math.nan
    alone = [drift for value in values.tolist() if (drift := one.add(value))]
    together = many.extend(values[:1000]) + many.extend(values[1000:])
    assert [(d.chart, d.values) for d in alone] == [(d.chart, d.values) for d in together]
    assert alone
    assert one.not_finite == many.not_finite == 45


def test_one_odd_part_however_odd_is_no_drift():
    _, detector = armed("independent", 2)
    assert detector.add(1e12) is None


def test_overrides_that_triple_are_found_within_1200_parts_at_a_fifth_audited():
    between = 20_000 * 0.2  # audited in a week
    limits = override_limits(0.01, 0.03, between)
    assert audited_to_alarm(limits, 0.01) >= between
    assert audited_to_alarm(limits, 0.03) / 0.2 <= 1200


def test_exact_run_length_of_overrides_is_what_counting_gives():
    limits = override_limits(0.05, 0.15, 500)
    rate, draws = OverrideRate(limits), np.random.default_rng(8).random(200_000) < 0.05
    alarms = sum(map(rate.add, draws.tolist()))
    assert len(draws) / alarms == pytest.approx(audited_to_alarm(limits, 0.05), rel=0.15)
    with pytest.raises(ValueError, match="cannot be told apart"):
        override_limits(0.03, 0.01, 500)
