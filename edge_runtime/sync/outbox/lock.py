"""One sender for one outbox: a lock that the system frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import is_still_at

ATTEMPTS, PAUSE_S = 5, 0.02  # `spool status` holds the lock for a moment when it looks whether a sync runs


class OutboxLock:
    """Two senders would give the same number to two records."""

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self._path = outbox.with_suffix(".lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Also makes the folder. Raises StorageError when another process has it, OSError."""
        if self._descriptor is not None and is_still_at(self._path, self._descriptor):
            return
        self.release()  # it went with the folder
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        for attempt in range(ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as err:
                if attempt + 1 == ATTEMPTS:
                    os.close(descriptor)
                    raise StorageError(
                        f"{self._outbox} is in use: another edge-runtime sync runs; stop that one first"
                    ) from err
                time.sleep(PAUSE_S)
        self._descriptor = descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
