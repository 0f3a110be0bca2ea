"""Names of labels: from a label file, or told one by one; and how they are shown.

Between names stand commas. A name that has some of its own ("tench, Tinca tinca") comes from a file, which has one a
line, or in double quotes; in quotes it is shown.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.core.errors import UsageError

MOST_LABELS = 20_000
MOST_BYTES = 4 << 20


def parse_labels(text: str) -> tuple[str, ...]:
    """One label a line, as label files have them. Raises ValueError for none or too many.

    A number in front of each, as in `0 person`, is taken away where the numbers are those of the lines.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").strip().splitlines()]
    if not lines or len(lines) > MOST_LABELS:
        raise ValueError(f"{len(lines)} labels")
    numbered = [line.split(maxsplit=1) for line in lines]
    if len(lines) > 1 and all(
        len(words) == 2 and words[0].rstrip(":") == str(number) for number, words in enumerate(numbered)
    ):
        lines = [words[1] for words in numbered]
    return tuple(line or f"label {number}" for number, line in enumerate(lines))


def label_names(text: str) -> tuple[str, ...]:
    """What `--labels` says: a file, or a name or several as `split_names` takes them. Raises UsageError."""
    path = Path(text)
    try:
        if path.is_file():
            if path.stat().st_size > MOST_BYTES:
                raise UsageError(f"{path}: {path.stat().st_size >> 20} MB is no label file")
            return parse_labels(path.read_bytes().decode("utf-8"))
    except ValueError as err:
        raise UsageError(f"{path}: not a label file ({err})", "one label a line, in UTF-8") from err
    except OSError as err:
        raise UsageError(f"{path}: cannot be read ({err.strerror or err})") from err
    if "," in text or not (path.suffix or "/" in text):  # a model may have one label
        names = split_names(text)
        if not names or not all(names):
            raise UsageError(f"labels {text[:60]!r}: one of them has no name", "name each, with one comma between two")
        return names
    raise UsageError(f"{text}: no such label file", "name a file with one label a line, or labels with commas between")


def split_names(text: str) -> tuple[str, ...]:
    """Names with commas between them; one with commas of its own in double quotes. Raises UsageError."""
    try:
        (names,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as err:
        fix = (
            "put a name with commas into double quotes, as in '\"tench, Tinca tinca\",goldfish', and name no line ends"
        )
        raise UsageError(f"labels {text[:60]!r} cannot be told apart", fix) from err
    return tuple(name.strip() for name in names)


def short(names: Sequence[str]) -> str:
    """The first of them, for a line."""
    return ", ".join(map(shown, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def shown(name: str) -> str:
    return f'"{name}"' if "," in name else name


def nearest(name: str, labels: Sequence[str]) -> list[str]:
    """Up to three labels that may be meant: those that have it among their words, else those written much like it."""
    holds = [label for label in labels if name.lower() in (piece.strip().lower() for piece in label.split(","))]
    holds = holds or [label for label in labels if name and name.lower() in label.lower()]
    return holds[:3] or difflib.get_close_matches(name, labels, n=1)
