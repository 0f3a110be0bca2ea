"""Who changed what through HTTP: one JSON line each, in the state folder, beside the journal that `run` alone writes.

A line is written before the answer goes out, so that what was answered is known. It is bounded: past MOST_BYTES the
file becomes `.1`, and the one before that goes. A disk that is full costs the line, which the log then has.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

AUDIT = "serve-audit.jsonl"  # in the state folder
MOST_BYTES = 2 << 20  # some 10 000 lines
MOST_TEXT = 300  # characters of one field: what a stranger sends does not fill the file


class Audit:
    """For any thread."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / AUDIT
        self._lock = threading.Lock()
        self.written = self.lost = 0

    def note(self, *, who: str, address: str, method: str, path: str, status: int, detail: str = "") -> None:
        """Never raises."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": who,
            "from": address,
            "method": method,
            "path": path[:MOST_TEXT],
            "status": status,
        } | ({"detail": detail[:MOST_TEXT]} if detail else {})
        with self._lock:
            try:
                self._append(json.dumps(line) + "\n")
                self.written += 1
            except OSError as err:
                self.lost += 1
                log.error("serve.audit %s: %s; lost: %s", self.path, err.strerror or err, json.dumps(line))

    def _append(self, line: str) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            os.write(fd, line.encode())
            is_full = os.fstat(fd).st_size > MOST_BYTES
        finally:
            os.close(fd)
        if is_full:
            self.path.replace(self.path.with_suffix(".jsonl.1"))
