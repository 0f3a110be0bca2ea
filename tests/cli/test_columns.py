"""Columns on terminals of every width: nothing wraps by itself, and what is left out is named."""

from __future__ import annotations

import click
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.cli.columns import GAP, Column, hanging, table

WORDS = st.lists(st.text("abcdefgh0123,.", min_size=1, max_size=12), min_size=1, max_size=30).map(" ".join)


@given(WORDS, st.integers(30, 120))
def test_text_beside_a_head_keeps_all_its_words_within_the_width(text: str, width: int) -> None:
    head = f"{click.style('!', fg='red')} name       "
    lines = hanging(head, text, width)
    assert "".join("".join(lines).split()) == "".join((head + text).split())
    assert all(len(click.unstyle(line)) <= width for line in lines)


def test_a_pipe_gets_one_line_however_long() -> None:
    assert hanging("name ", "word " * 100, None) == [("name " + "word " * 100).rstrip()]


@given(st.lists(st.tuples(*[st.text("abc", max_size=14)] * 5), max_size=4), st.integers(24, 100))
@settings(max_examples=60)
def test_columns_go_by_rank_until_the_others_fit(rows: list[tuple[str, ...]], width: int) -> None:
    columns = [Column("ID"), Column("SECOND", rank=1), Column("THIRD", rank=3), Column("FOURTH", rank=2), Column("WHY")]
    laid_out, left_out = table(columns, rows, width)
    assert left_out in ([], ["THIRD"], ["THIRD", "FOURTH"], ["SECOND", "THIRD", "FOURTH"])
    assert all(len(GAP.join(line)) <= width for line in laid_out)
    assert table(columns, rows, None)[1] == []
