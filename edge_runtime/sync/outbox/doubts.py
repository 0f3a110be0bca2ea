"""Which record the broker will never take, told apart from a way or a moment in which it takes none. Pure.

A refused record does not stop the others. It is tried again, ever more seldom, and every refusal is a strike, but only
where the way was good: another record was acknowledged since the strike before, or a moment ago, and no others were
refused beside it. So many strikes, and the record is set aside. Where all are refused (an access list, a full broker,
a broken network) nobody is to blame: nothing is set aside, no further ones are spent, and a few are tried now and then.

A connection that ends is no word about any record. Only one that was under way alone when it ended gets a strike; see
`Sender` for how they come to be alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.core.clock import MS, SECOND
from edge_runtime.sync.mqtt.reasons import LOST_WITH_IT, TOO_LARGE_HERE, About, about, in_words

STRIKES = {About.MESSAGE: 2, About.WAY: 3, About.UNKNOWN: 3}
LOST_ALONE = 4  # strikes, where nothing else was acknowledged between two lost connections
GOOD_FOR_NS = 60 * SECOND  # after an acknowledgement the way is taken to be good
BAD_FROM = 3  # so many others, refused for the first time since the last acknowledgement: it is the way
ENOUGH = 20  # such records are tried before the others are left alone
SOME_MORE = 5  # with each further attempt: the twenty may be bad ones, and the next a good one
MOST = 500  # doubtful ones at a time: many that have to wait, while others get through
FIRST_NS, LONGEST_NS = 500 * MS, 60 * SECOND  # between two tries


@dataclass(slots=True)
class Doubt:
    seq: int
    code: int
    next_ns: int = 0  # when it is tried again
    strikes: int = 0
    tries: int = 0
    acks_seen: int = -1  # of other records, at the last try; -1: it is the first

    @property
    def must_be_alone(self) -> bool:
        return self.code == LOST_WITH_IT


class Doubts:
    """Records that were refused, and what is known of the way. All that is in here was handed out by the lanes."""

    def __init__(self) -> None:
        self._doubts: dict[int, Doubt] = {}
        self._acks = 0
        self._last_ack_ns: int | None = None
        self._fresh: set[int] = set()  # refused for the first time since the last acknowledgement
        self._allowed = ENOUGH
        self._pauses = self._pause_ns = 0

    def __len__(self) -> int:
        return len(self._doubts)

    def __contains__(self, seq: int) -> bool:
        return seq in self._doubts

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._doubts))

    def acked(self, seq: int, now_ns: int) -> None:
        """The broker took this one: the way is good. A doubtful one that got through clears all who were refused with
        it."""
        was_doubtful = self._doubts.pop(seq, None) is not None
        if was_doubtful and self.is_way_bad:
            for doubt in self._doubts.values():
                doubt.strikes, doubt.next_ns = 0, now_ns
        self._acks += 1
        self._last_ack_ns = now_ns
        if self._fresh:
            self._fresh.clear()
            self._allowed, self._pauses, self._pause_ns = ENOUGH, 0, 0

    def refused(self, seq: int, code: int, now_ns: int) -> bool:
        """Whether it is to be set aside now; it is forgotten here then."""
        doubt = self._doubts.get(seq)
        if doubt is None:
            doubt = self._doubts[seq] = Doubt(seq, code)
            self._fresh.add(seq)
            self._rest(now_ns)
        doubt.code = code
        if about(code) is not About.MOMENT and self._counts(doubt, now_ns):
            doubt.strikes += 1
            if doubt.strikes >= self._needed(doubt):
                del self._doubts[seq]
                self._fresh.discard(seq)
                return True
        doubt.acks_seen = self._acks
        doubt.next_ns = now_ns + min(FIRST_NS << min(doubt.tries, 16), LONGEST_NS)
        doubt.tries += 1
        return False

    def due(self, now_ns: int) -> Doubt | None:
        """One that is to be tried again now; it is not named again before `refused` or `acked`, or its next time."""
        found = min(self._doubts.values(), key=lambda doubt: doubt.next_ns, default=None)
        return found if found and found.next_ns <= now_ns else None

    def tried(self, doubt: Doubt, now_ns: int) -> None:
        doubt.next_ns = now_ns + LONGEST_NS  # where no answer comes the connection ends before that

    def forget(self, seq: int) -> None:
        """It does not wait any more."""
        self._doubts.pop(seq, None)
        self._fresh.discard(seq)

    @property
    def has_lone(self) -> bool:
        return any(doubt.must_be_alone for doubt in self._doubts.values())

    def strikes(self, seq: int) -> int:
        doubt = self._doubts.get(seq)
        return doubt.strikes if doubt else 0

    def is_alone(self, seq: int) -> bool:
        """Whether nothing else may be under way with it."""
        doubt = self._doubts.get(seq)
        return doubt is not None and doubt.must_be_alone

    def link_up(self, now_ns: int) -> None:
        """Another connection may take larger packets. The one at which the last ended lets others go first."""
        for doubt in self._doubts.values():
            if doubt.code == TOO_LARGE_HERE:
                doubt.strikes = 0
            if doubt.must_be_alone:
                doubt.next_ns = now_ns + (FIRST_NS << min(doubt.strikes, 2))
            else:
                doubt.next_ns = min(doubt.next_ns, now_ns + (FIRST_NS << min(doubt.tries, 6)))

    def may_take_more(self, now_ns: int) -> bool:
        """Whether a record that was not tried yet may go."""
        if len(self._doubts) >= MOST:
            return False
        if len(self._fresh) < self._allowed:
            return True
        if now_ns < self._pause_ns:
            return False
        self._allowed += SOME_MORE
        return True

    @property
    def is_way_bad(self) -> bool:
        return len(self._fresh) > BAD_FROM

    def trouble(self) -> str:
        """In words, or nothing."""
        if not self._doubts:
            return ""
        codes = sorted({doubt.code for doubt in self._doubts.values()})
        words = ", ".join(in_words(code) for code in codes[:3])
        if not self.is_way_bad:
            return f"the broker refuses {len(self._doubts)} of the records: {words}; they are tried again"
        check = "; check its access list" if any(about(code) is About.WAY for code in codes) else ""
        return f"the broker refuses all records: {words}{check}; they wait here"

    def _counts(self, doubt: Doubt, now_ns: int) -> bool:
        if len(self._fresh - {doubt.seq}) >= BAD_FROM:
            return False
        if 0 <= doubt.acks_seen < self._acks:
            return True
        is_way_good = self._last_ack_ns is not None and now_ns - self._last_ack_ns < GOOD_FOR_NS
        return is_way_good and (about(doubt.code) is not About.WAY or doubt.acks_seen < 0)

    def _needed(self, doubt: Doubt) -> int:
        if doubt.code == TOO_LARGE_HERE:
            return 1  # nothing was sent that could have got lost
        if doubt.code == LOST_WITH_IT and doubt.acks_seen == self._acks:
            return LOST_ALONE
        return STRIKES[about(doubt.code)]

    def _rest(self, now_ns: int) -> None:
        if len(self._fresh) >= self._allowed:
            self._pause_ns = now_ns + min(FIRST_NS << min(self._pauses, 16), LONGEST_NS)
            self._pauses += 1
