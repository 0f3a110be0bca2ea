"""Text in columns, as wide as the terminal is: a console has 80, and a line that wraps is no table any more.

A pipe or a file gets everything, at whatever width that takes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import click

GAP = "  "
LEAST_WORDS = 20  # narrower than this a column of prose says nothing
NARROWEST = 20


@dataclass(frozen=True, slots=True)
class Column:
    """rank: the highest one goes first where there is no room for all; 0 stays. The last column is cut to the rest."""

    name: str
    rank: int = 0
    is_number: bool = False


def room(stream: TextIO | None = None) -> int | None:
    """Width of the terminal that is written to; None where nobody reads at a width. stream: stdout, unless named."""
    stream = stream or sys.stdout
    try:
        columns = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError, AttributeError):
        return None
    return max(NARROWEST, columns) if columns else None  # a serial console may not know its width


def hanging(head: str, text: str, width: int | None) -> list[str]:
    """`head` and the text beside it; what does not fit goes below, under its first word. No word is cut or lost."""
    plain = click.unstyle(head)
    if width is None or len(plain) + len(click.unstyle(text)) <= width:
        return [(head + text).rstrip()]
    import textwrap

    indent = " " * (len(plain) if len(plain) + LEAST_WORDS <= width else 2)
    lines = textwrap.wrap(
        plain + text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip
    return [lines[0].replace(plain.rstrip(), head.rstrip(), 1), *lines[1:]] if lines else [head.rstrip()]


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> tuple[list[list[str]], list[str]]:
    """The head and all rows as padded fields, and the names of the columns that were left out."""
    cells = [[column.name for column in columns], *map(list, rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    shown = list(range(len(columns)))
    last = shown[-1]
    if width is not None:
        wanted = min(widths[last], LEAST_WORDS)
        for number in sorted(shown, key=lambda number: -columns[number].rank):
            if not columns[number].rank or _taken(widths, shown[:-1]) + wanted <= width:
                break
            shown.remove(number)
        widths[last] = max(1, min(widths[last], width - _taken(widths, shown[:-1])))
    return [[_placed(line[number], widths[number], columns[number]) for number in shown] for line in cells], [
        columns[number].name for number in range(len(columns)) if number not in shown
    ]


def _taken(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[number] + len(GAP) for number in shown)


def _placed(text: str, width: int, column: Column) -> str:
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if column.is_number else text.ljust(width)
