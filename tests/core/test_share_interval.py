"""Exact intervals of shares against those of statsmodels 0.15 (`proportion_confint(..., method="beta")`)."""

from __future__ import annotations

import pytest

from edge_runtime.core.share_interval import share_interval

# its ends are no number where nothing or everything was hit: 0 and 1 here
OF_STATSMODELS = [
    (0, 5, 0.0, 0.5218237501049815),
    (0, 20, 0.0, 0.16843347098308534),
    (1, 20, 0.0012650894979498038, 0.24873276277202783),
    (3, 10, 0.06673951117773447, 0.6524528500599973),
    (10, 10, 0.6915028921812392, 1.0),
    (0, 368, 0.0, 0.009974054826946353),
    (7, 368, 0.0076810886866574895, 0.03879773346009477),
    (500, 1000, 0.46854917297179194, 0.5314508270282081),
    (900, 1000, 0.8797120634813074, 0.91789466564442),
    (999, 1000, 0.9944410757201734, 0.9999746825125088),
    (4999, 5000, 0.998886180619666, 0.999994936451223),
    (20, 100_000, 0.00012216933968999097, 0.0003088669626311432),
    (99_999, 100_000, 0.9999442848396523, 0.9999997468219523),
]


@pytest.mark.parametrize(("hits", "count", "low", "high"), OF_STATSMODELS)
def test_intervals_are_those_of_an_independent_library(hits: int, count: int, low: float, high: float) -> None:
    assert share_interval(hits, count) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("count", [1, 7, 60, 700])
def test_every_interval_holds_its_share_and_mirrors_that_of_the_rest(count: int) -> None:
    for hits in range(0, count + 1, max(1, count // 12)):
        low, high = share_interval(hits, count)
        assert low <= hits / count <= high
        assert share_interval(count - hits, count) == pytest.approx((1.0 - high, 1.0 - low), abs=1e-12)
