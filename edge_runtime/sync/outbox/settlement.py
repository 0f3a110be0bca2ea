"""What the broker has answered and the outbox does not know yet: records to be deleted, kept, or set aside.

All of it is settled in one transaction, which may be that of somebody who has more to write: `settle` inside of it,
`settled` after its commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.recording.pruned import ranges
from edge_runtime.sync.mqtt.read_back import ReadBack, Verdict
from edge_runtime.sync.mqtt.reasons import in_words
from edge_runtime.sync.outbox.aside import Aside, Why
from edge_runtime.sync.outbox.consumer_acks import MOST_RANGES
from edge_runtime.sync.outbox.lanes import Lanes
from edge_runtime.sync.outbox.queue import Queue

log = logging.getLogger(__name__)

DELETE_BATCH = 500
DELETE_AFTER_NS = 250 * MS  # acknowledged records wait so long for company: 4 commits a second at most
TELL_EVERY_NS = 60 * SECOND  # events about records set aside: the broker may refuse these, too

Tell = Callable[[EventKind, Mapping[str, Any]], object]


class Settlement:
    """Used by the thread that owns the outbox. tell(event, detail): something that the cloud should hear of."""

    def __init__(self, outbox: Queue, lanes: Lanes, aside: Aside, proof: ReadBack, clock: Clock, tell: Tell) -> None:
        self._outbox = outbox
        self._lanes = lanes
        self._aside = aside
        self._proof = proof
        self._clock = clock
        self._tell = tell
        self._done: list[int] = []  # acknowledged, not yet deleted
        self._unproven: list[int] = []  # acknowledged, and to be kept
        self._condemned: list[tuple[int, int]] = []  # to be set aside: seq, code
        self._since_ns = 0
        self._untold: list[tuple[int, int]] = []
        self._tell_after_ns = 0
        self.set_aside = 0

    def outbox_renewed(self) -> None:
        for numbers in (self._done, self._unproven, self._condemned, self._untold):
            numbers.clear()

    @property
    def acknowledged(self) -> int:
        """How many wait here because the broker has them."""
        return len(self._done) + len(self._unproven)

    @property
    def done(self) -> int:
        return len(self._done)

    @property
    def unproven(self) -> int:
        return len(self._unproven)

    def numbers(self) -> set[int]:
        """All that wait here: delivered, or taken out."""
        return {*self._done, *self._unproven, *(seq for seq, _ in self._condemned)}

    def took(self, seq: int, now_ns: int) -> None:
        """The broker has it. Where nothing proves that it keeps it, it is kept here."""
        if not self.acknowledged:
            self._since_ns = now_ns
        (self._unproven if self._proof.verdict is Verdict.UNPROVEN else self._done).append(seq)

    def condemn(self, seq: int, code: int) -> None:
        """The broker will never take it."""
        self._condemned.append((seq, code))

    def flush(self, *, at_once: bool = False) -> None:
        """Delete what was delivered, set aside the rest: when there is enough of it, or now."""
        if not (self.acknowledged or self._condemned) or not (at_once or self._is_due()):
            return
        is_deletion = not (self._unproven or self._condemned)
        with self._outbox.deletion() if is_deletion else self._outbox.transaction():
            self.settle()
        self.settled()

    def _is_due(self) -> bool:
        if self._condemned or self.acknowledged >= DELETE_BATCH:
            return True
        return self._clock() - self._since_ns >= DELETE_AFTER_NS

    def settle(self) -> None:
        """Inside a transaction of the caller; `settled` must follow its commit."""
        self._outbox.settle(self._done)
        self._aside.begin()
        if self._unproven:
            self._aside.put(self._unproven, Why.UNPROVEN, self._proof.why)
        for code in {code for _, code in self._condemned}:
            self._aside.put([seq for seq, why in self._condemned if why == code], Why.REFUSED, in_words(code))

    def settled(self) -> None:
        self._lanes.settled(self.numbers())
        condemned, self._condemned = self._condemned, []
        self._done, self._unproven = [], []
        self.set_aside += len(condemned)
        self._untold += condemned
        self.tell_aside()
        self._aside.committed()  # the last, because it may need the disk again

    def tell_aside(self) -> None:
        """Let the cloud hear of what was set aside, once in a while."""
        now = self._clock()
        if not self._untold or now < self._tell_after_ns:
            return
        self._tell_after_ns = now + TELL_EVERY_NS
        untold, self._untold = self._untold, []
        for code in sorted({code for _, code in untold}):
            seqs = sorted(seq for seq, why in untold if why == code)
            spans = [list(span) for span in ranges(seqs)[:MOST_RANGES]]
            log.warning("uplink.set_aside count=%d why=%s first=%d", len(seqs), in_words(code), seqs[0])
            self._tell(EventKind.SET_ASIDE, {"count": len(seqs), "why": in_words(code), "seqs": spans})
