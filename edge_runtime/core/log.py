"""Log lines for people at the line and for journald: one JSON object a line, with the journal's priority prefix.

systemd reads `<N>` at the start of a line as the syslog priority (sd-daemon(3)), so `journalctl -p warning` works.
On a terminal the same records are plain text.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import IO

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_SECONDS_BETWEEN_REPEATS = 10.0


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return f"<{_PRIORITY.get(record.levelno, 6)}>{json.dumps(line, ensure_ascii=False)}"


class RepeatFilter(logging.Filter):
    """Lets one of many equal warnings through every ten seconds, with the number of those held back."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, record.levelno, str(record.msg))
        last, held = self._held.get(key, (-1e18, 0))
        if record.created - last < _SECONDS_BETWEEN_REPEATS:
            self._held[key] = (last, held + 1)
            return False
        if held:
            record.msg = f"{record.msg} (and {held} more like this)"
        self._held[key] = (record.created, 0)
        return True


def set_up_logging(level: str = "info", stream: IO[str] | None = None) -> None:
    """Send the product's records to stderr. Called once per process, by its command."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    if stream.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonLines())
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
