"""Looks now and then whether the open outbox is still the one that was opened, and mends what it can.

SQLite writes on happily into files that were deleted or overwritten; what was committed there is gone with the process.
Nothing is lost as long as this process lives, because the deleted files are still open here. Once a second the files
are looked at (three `stat`), every 10 s the database is read as a stranger would, 1 ms.
"""

from __future__ import annotations

import logging
import sqlite3

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.recording.trouble import is_damage
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.records.format import own_event

log = logging.getLogger(__name__)

READ_BACK_NS = 10 * SECOND
EVENT = EventKind.OUTBOX_MENDED


class OutboxGuard:
    """Used by the thread that owns the outbox."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._next_ns = clock() + READ_BACK_NS
        self._lost = ""  # the companion that is to be told of
        self.mended = 0

    def look(self) -> bool:
        """Whether another file now lies under the outbox: its numbers are new ones.

        Raises sqlite3.Error where the file is damaged, OSError where no new one can be made.
        """
        outbox = self._outbox
        if outbox.is_gone():
            log.error("outbox.gone file=%s was removed or replaced: a new one begins", outbox.path)
            self._replace()
            self.mended += 1
            return True
        before = outbox.epoch
        if name := outbox.lost_companion():
            log.error("outbox.gone file=%s%s was removed or replaced under us: made anew", outbox.path, name)
            self._lost = name  # told even where mending it fails half way, and whoever owns the outbox opens it anew
            outbox.mend_companions()
        if self._lost:
            with outbox.transaction():
                outbox.add([own_event(EVENT, {"file": outbox.path.name + self._lost}, outbox.wall)])
            self._lost = ""
            self.mended += 1
            return outbox.epoch != before
        if self._clock() >= self._next_ns:
            self._next_ns = self._clock() + READ_BACK_NS
            outbox.read_back()
        return False

    def _replace(self) -> None:
        try:
            self._outbox.rescue()
        except sqlite3.Error as err:
            if not is_damage(err):
                raise  # no room, or the folder cannot be made: it is still open, and tried again
            log.error("outbox.rescue error=%s: what waited is counted as lost", err)
            self._outbox.begin_anew()
