"""Log lines for people at the line and for journald: one JSON object a line, with the journal's priority prefix.

systemd reads `<N>` at the start of a line as the syslog priority (sd-daemon(3)), so `journalctl -p warning` works.
On a terminal the same records are plain text.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from typing import IO

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_SECONDS_BETWEEN_REPEATS = 10.0
AUDITS = 100  # a person does less in ten seconds; a process that knocks all the time must not fill the disk


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


AUDIT = {"is_audit": True}  # `extra` of a line that says who did what: each of them is to be found later


class RepeatFilter(logging.Filter):
    """Lets one of many equal warnings through every ten seconds, with the number of those held back. Lines of AUDIT are
    told one by one, and only folded where somebody makes more than AUDITS of them in that time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[tuple[str, int, str], tuple[float, int]] = {}
        self._audits: deque[float] = deque(maxlen=AUDITS)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        if getattr(record, "is_audit", False) and self._is_room_for_audit(record.created):
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

    def _is_room_for_audit(self, now: float) -> bool:
        if len(self._audits) == AUDITS and now - self._audits[0] < _SECONDS_BETWEEN_REPEATS:
            return False
        self._audits.append(now)
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
