"""Keeps the two files of `seal.py` beside an open outbox."""

from __future__ import annotations

import logging
from pathlib import Path

from edge_runtime.sync.outbox.seal import BLOCK, Last, LastFile, Seal, read_last, read_seal, stamp_of, write_seal

log = logging.getLogger(__name__)


class Keeper:
    """boot: which boot of the machine this is. Raises OSError where nothing else is said."""

    def __init__(self, outbox: Path, boot: str) -> None:
        self._path = outbox
        self.boot = boot
        self.seal: Seal | None = None
        self.last: Last | None = None  # as it was found
        self._file: LastFile | None = None

    def read(self) -> None:
        """What lies there, before anything is written."""
        self.seal, self.last = read_seal(self._path), read_last(self._path)

    def open(self) -> None:
        self.close()
        self._file = LastFile(self._path)

    def close(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    def is_for(self, epoch: str) -> bool:
        """Whether the seal says that this box, in this boot, is writing in this epoch."""
        seal = self.seal
        return seal is not None and (seal.epoch, seal.closed, seal.boot) == (epoch, None, self.boot)

    def covers(self, epoch: str, seq: int) -> bool:
        """Whether that number may be given away."""
        return self.seal is not None and self.seal.epoch == epoch and seq <= self.seal.reserved

    def write_seal(self, epoch: str, seq: int, closed: int | None = None) -> int:
        """Reserve the next block, on the medium; the stamp that the database has to note."""
        before = self.seal.stamp if self.seal else 0
        self.seal = write_seal(self._path, Seal(epoch, seq + BLOCK, closed, self.boot, before))
        return self.seal.stamp

    def write_last(self, last: Last) -> None:
        """Told when it cannot be: numbers are safe as long as the database does not lose commits at the same time."""
        try:
            if self._file:
                self._file.write(last)
        except OSError as err:
            log.warning("outbox.last error=%s", err)

    def is_touched(self) -> bool:
        """Somebody wrote, changed or removed one of the files."""
        is_sealed = self.seal is not None and stamp_of(self._path) == self.seal.stamp
        return not is_sealed or self._file is None or self._file.is_gone()
