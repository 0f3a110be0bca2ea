"""Names of labels: from a label file, or told one by one."""

from __future__ import annotations

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
    """What `--labels` says: a file, or a name or several with commas between them. Raises UsageError."""
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
        return parse_labels("\n".join(text.split(",")))
    raise UsageError(f"{text}: no such label file", "name a file with one label a line, or labels with commas between")
