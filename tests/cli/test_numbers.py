"""Numbers on the command line: what no comparison can hold within bounds is refused."""

from __future__ import annotations

import click
import pytest

from edge_runtime.cli.numbers import FiniteRange


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "NaN", "1e999"])
def test_what_is_not_finite_is_refused(text):
    with pytest.raises(click.BadParameter, match=r"not a finite number|range"):
        FiniteRange(0.1).convert(text, None, None)


def test_bounds_and_words_are_clicks_own():
    assert FiniteRange(0.1, 5).convert("2.5", None, None) == 2.5
    with pytest.raises(click.BadParameter, match=r"range"):
        FiniteRange(0.1, 5).convert("6", None, None)
