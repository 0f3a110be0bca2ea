"""The live screen on narrow terminals: nothing that counts falls off its edge."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cli.screen import GAP, draw, folded
from edge_runtime.core.status import Status

GROUPS = st.lists(st.text("abc 0123%", min_size=1, max_size=20).map(str.strip).filter(bool), min_size=1, max_size=8)


def without_gaps(text: str) -> str:
    return "".join(text.split())


@given(GROUPS, st.integers(30, 120))
def test_a_line_of_groups_keeps_all_of_them_within_the_width(groups: list[str], width: int) -> None:
    line = GAP.join(groups)
    lines = folded(line, width)
    assert without_gaps("".join(lines)) == without_gaps(line)
    assert all(len(part) <= width for part in lines)


def test_the_count_of_unsure_parts_is_seen_at_80_columns() -> None:
    words = [click.style(f"{name} 123456 (33.3 %)", fg="green", bold=True) for name in ("accept", "reject", "unsure")]
    lines = folded(f" parts 370368{GAP}10.0 parts/s{GAP}{GAP.join(words)}", 80)
    assert len(lines) == 2
    assert click.unstyle(lines[-1]).endswith("unsure 123456 (33.3 %)")
    assert all(len(click.unstyle(part)) <= 80 for part in lines)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_line_that_fits_stays_as_it_is(width: int) -> None:
    assert folded(f" gate  passed 3{GAP}not judged: deadline 1", width) == [
        f" gate  passed 3{GAP}not judged: deadline 1"
    ]


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_decision_that_is_not_on_the_disk_says_so_within_80_columns(real_status: Status, is_recorded: bool) -> None:
    rows = tuple(replace(row, is_recorded=is_recorded) for row in real_status.recent)
    lines = draw(replace(real_status, recent=rows), None, 80)
    assert rows and sum("decided, not yet recorded" in line for line in lines) == (
        0 if is_recorded else len(rows[-12:])
    )
