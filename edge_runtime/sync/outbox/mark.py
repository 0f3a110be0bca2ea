"""What survives the loss of the outbox: a few numbers in a file beside it.

The journal still has what the outbox held, so a lost or damaged outbox costs nothing but repetition: a new one begins
to read the journal where everything before was delivered. Written every few seconds and replaced whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_runtime.core.files import write_atomic


@dataclass(frozen=True, slots=True)
class Mark:
    """`delivered`: for each table of that journal, the row up to which all was delivered."""

    epoch: str
    journal: str
    delivered: Mapping[str, int] = field(default_factory=dict)


def mark_file(outbox: Path) -> Path:
    return outbox.with_suffix(".mark")


def read_mark(outbox: Path) -> Mark | None:
    """None where there is none, or none that makes sense: then the journal is read from its beginning."""
    try:
        found = json.loads(mark_file(outbox).read_text())
        delivered = {str(name): int(row) for name, row in found["delivered"].items()}
        return Mark(str(found["epoch"]), str(found["journal"]), delivered)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_mark(outbox: Path, mark: Mark) -> None:
    """Raises OSError; the old mark is still good then, and merely means more repetition."""
    write_atomic(mark_file(outbox), json.dumps(asdict(mark)), sync_folder=False)
