"""What people said about parts, as whoever makes room for new pictures asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import Label, PartKey
from edge_runtime.recording.reader import JournalReader


@contextmanager
def labels_in_force(journal: Path) -> Iterator[Callable[[PartKey], Label | None]]:
    """A look at the journal; 20 us a part. In one that cannot be read nobody is known to have said anything."""
    try:
        reader = JournalReader(journal)
    except StorageError:
        yield lambda _: None
        return
    with reader:
        yield lambda key: _label(reader, key)


def _label(reader: JournalReader, key: PartKey) -> Label | None:
    try:
        return reader.label_of(key)
    except StorageError:
        return None
