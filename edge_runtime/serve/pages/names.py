"""Names for what a status document tells by number or code: what a code stands for, who holds the line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_runtime.catalogue.catalogue import DATABASE, Catalogue
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.events import EventKind
from edge_runtime.recording.reader import JournalReader
from edge_runtime.serve.pages.documents import Found

MOST_KEPT = 500  # codes


class Names:
    """Use it in one thread."""

    def __init__(self, state: Path, journal: Path) -> None:
        self._catalogue = state / DATABASE
        self._journal = journal
        self._found: dict[str, Found] = {}
        self._stamp = 0

    def of_code(self, code: str) -> Found:
        """Name and work instruction are empty where the catalogue has no such code."""
        self._forget_when_changed()
        if code not in self._found:
            self._found[code] = self._look_up(code)
        return self._found[code]

    def _forget_when_changed(self) -> None:
        with suppress(OSError):
            stamp = self._catalogue.stat().st_mtime_ns
            if stamp != self._stamp or len(self._found) > MOST_KEPT:
                self._found.clear()
            self._stamp = stamp

    def _look_up(self, code: str) -> Found:
        if self._catalogue.is_file():
            with suppress(EdgeError), Catalogue(self._catalogue) as catalogue:
                item = catalogue.item(code)
                if item is not None:
                    return Found(code, item.name, item.instruction)
        return Found(code, "", "")

    def holder(self) -> tuple[str, int]:
        """Who held the line last, and when (ms, UTC); empty and 0 where the journal does not say."""
        with suppress(StorageError), JournalReader(self._journal) as reader:
            event = reader.newest_event(EventKind.OPERATOR_HOLD)
            if event is not None:
                return str(event["detail"].get("by", "")), int(event["at_utc_ns"]) // 10**6
        return "", 0
