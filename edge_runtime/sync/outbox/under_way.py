"""Which records are under way, and at which one connections end. Pure.

A connection that ends says nothing about any record. Where it ends again and again with the same records under way,
these go one at a time: the one that was alone when it ended again is the one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_runtime.core.clock import SECOND

DUBIOUS_NS = 120 * SECOND  # after a lost connection, one at a time for so long at most


class UnderWay:
    """Numbers of the records that were sent on this connection and not answered yet."""

    def __init__(self) -> None:
        self._sent: set[int] = set()
        self._lost: set[int] = set()  # were under way when the last connection ended
        self._dubious: set[int] = set()  # were so more than once: these go one at a time
        self._dubious_until_ns = 0

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sent)

    @property
    def is_careful(self) -> bool:
        """Records go one at a time."""
        return bool(self._dubious)

    def must_wait(self, now_ns: int) -> bool:
        """Whether the next record may not go, because another one is to be alone."""
        if not self._dubious:
            return False
        if self._sent:
            return True
        if now_ns >= self._dubious_until_ns:
            self._dubious.clear()
        return False

    def sent(self, seq: int) -> None:
        self._sent.add(seq)

    def answered(self, seq: int) -> None:
        """The broker said something about this one."""
        self._sent.discard(seq)
        self._dubious.discard(seq)

    def link_up(self) -> None:
        self._sent.clear()

    def link_down(self, also: Iterable[int]) -> set[int]:
        """The connection ended; what was lost with it. also: acknowledged, and nobody knows whether it was kept."""
        lost = self._sent.union(also)
        self._sent.clear()
        return lost

    def suspect(self, lost: set[int], now_ns: int) -> None:
        """Nobody knows why it ended: perhaps one of these was the reason."""
        self._dubious |= lost & self._lost
        self._dubious_until_ns = now_ns + DUBIOUS_NS
        self._lost = lost

    def single_out(self, seq: int) -> None:
        """This one has a time of its own now."""
        self._dubious.discard(seq)

    def absolve(self) -> None:
        """Connections ended for another reason."""
        self._lost.clear()
        self._dubious.clear()
