"""Latency figures: percentiles within 1 %, whatever was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.flow.timing import Latency


def test_nothing_counted_reads_zero():
    assert Latency().summary() == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


@given(st.lists(st.floats(0.001, 100_000), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_percentiles_are_within_one_percent(values, share):
    latency = Latency()
    for value in values:
        latency.add(value)
    ordered = sorted(values)
    exact = next(value for n, value in enumerate(ordered, 1) if n >= share * len(ordered))
    assert exact * 0.989 <= latency.percentile(share) <= exact * 1.011
    assert latency.max_ms == ordered[-1]


@given(st.floats(-10, 1e12))
def test_any_number_is_counted(value):
    latency = Latency()
    latency.add(value)
    assert latency.count == 1
