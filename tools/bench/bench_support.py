"""What the benches share: they run from a checkout with nothing activated, and print one JSON document or a table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def use_checkout() -> None:
    """Make the package of this checkout importable; go on under its own Python when this one lacks the libraries.

    Call it before anything else is imported.
    """
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        import click  # noqa: F401
        import cv2  # noqa: F401
        import pydantic  # noqa: F401
    except ImportError:
        python = ROOT / ".venv/bin/python"
        if Path(sys.executable).parent == python.parent or not python.exists():
            sys.exit("error: the libraries are not installed; run tools/setup first")
        os.execv(python, [str(python), *sys.argv])


def say(text: str) -> None:
    """Progress and notes, beside the result."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=1))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """columns: key -> title. Numbers to the right, floats with three digits."""
    table = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[at]) for line in table) for at in range(len(columns))]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
