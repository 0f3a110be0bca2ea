"""Which parts a person has labelled, as whoever makes room for new pictures asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import PartKey
from edge_runtime.recording.reader import JournalReader


@contextmanager
def labels(journal: Path) -> Iterator[Callable[[PartKey], bool]]:
    """A look at the journal; 20 us a part. In one that cannot be read nobody is known to have labelled anything."""
    try:
        reader = JournalReader(journal)
    except StorageError:
        yield lambda _: False
        return
    with reader:
        yield lambda key: _is_labelled(reader, key)


def _is_labelled(reader: JournalReader, key: PartKey) -> bool:
    try:
        return reader.is_labelled(key)
    except StorageError:
        return False
