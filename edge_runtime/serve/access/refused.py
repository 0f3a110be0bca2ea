"""Refused writes and wrong tokens in the audit, so few that nobody who is refused can fill the disk with them.

One line each, up to LINES_AT_ONCE of an address and ALL_AT_ONCE of all together, then one a minute. The others are
counted: after COUNT_AFTER_S one line says how many of each status were left out. That is two lines a minute at the
most, some 1 MB a day; the count of the last minute before `serve` ends is lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from edge_runtime.serve.access.audit import Audit
from edge_runtime.serve.access.limits import Buckets

COUNT_AFTER_S = 60.0
LINES_PER_S = 1 / 60
LINES_AT_ONCE, ALL_AT_ONCE = 20, 100  # a person who mistypes, and a line of them, are seen one by one
MOST_PATH = 100  # characters
NO_ANSWER = 0  # the status of a line that counts others


class RefusedNotes:
    """For one thread: the event loop's."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._of_address = Buckets(LINES_PER_S, LINES_AT_ONCE)
        self._of_all = Buckets(LINES_PER_S, ALL_AT_ONCE)
        self._left_out: Counter[int] = Counter()

    def note(self, *, address: str, method: str, path: str, status: int, why: str) -> None:
        """Within the running event loop. Never raises."""
        if self._of_address.take(address) and self._of_all.take(""):
            self._audit.note(who="", address=address, method=method, path=path[:MOST_PATH], status=status, detail=why)
            return
        if not self._left_out:
            asyncio.get_running_loop().call_later(COUNT_AFTER_S, self._tell)
        self._left_out[status] += 1

    def _tell(self) -> None:
        counts = ", ".join(f"{count} of {status}" for status, count in sorted(self._left_out.items()))
        self._left_out.clear()
        self._audit.note(
            who="", address="", method="", path="", status=NO_ANSWER, detail=f"refused and left out: {counts}"
        )
