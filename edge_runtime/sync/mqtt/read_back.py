"""Proof that the broker keeps what it acknowledges: this box reads some of its own records back. Pure, no clock.

A 3.1.1 broker acknowledges what its access list or its size limit throws away, and some that speak MQTT 5 do, too. So
with each connection, and every `AGAIN_NS` while it lasts, the box subscribes to its own records, publishes the next few
alone, and goes on when they have come back. Real records and no probe: a probe on another topic would prove another
line of the access list, and on this one every consumer would have to know it. What was proven holds up to the largest
record that came back; a larger one is read back itself, because size limits are silent as well. That happens a dozen
times and then hardly ever.

    IDLE --due--> ASKING (SUBSCRIBE) --granted--> SHOWING (some records, nothing else) --all came, or time--> IDLE

Where nothing comes back it cannot be told from here whether the broker throws away or merely does not show. So nothing
is claimed: the way is `unproven`, records go out all the same (they may well arrive), and what the broker acknowledged
is kept beside the queue instead of being deleted, see `outbox_aside`. To stop instead would cut off every site whose
access list lets boxes write only; to delete would lose everything at a site whose list forgot them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from edge_runtime.core.clock import SECOND

SHOWN = 5  # records in one proof: one may be too large for the broker, so there have to be others
SHOW_WAIT_NS = 3 * SECOND  # from the last acknowledgement to the last that comes back
GRANT_WAIT_NS = 10 * SECOND
AGAIN_NS = 600 * SECOND  # an access list can change under a connection that lasts
RETRY_NS = (30 * SECOND, 3600 * SECOND)  # first and longest wait after a proof that failed, doubled each time
LOST_SHOWING = 3  # connections that ended after the acknowledgement, with nothing back: mosquitto 2.0 may hang up then
LOST_ASKING = 2  # connections that ended at the question, before it is not asked any more: some brokers hang up


class Verdict(StrEnum):
    OPEN = "open"  # nothing was shown yet
    PROVEN = "proven"
    UNPROVEN = "unproven"
    OFF = "off"  # not asked for: the station takes the broker's word, or the consumer acknowledges


class Step(Enum):
    """What is to be done with the next record."""

    SEND = "send"
    SHOW = "send it, as one that must come back"
    ASK = "subscribe first, then ask again"
    WAIT = "not now"


class _Phase(Enum):
    IDLE = 0
    ASKING = 1
    SHOWING = 2


@dataclass(slots=True)
class _Shown:
    seq: int
    payload: bytes
    is_back: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one proof: numbers of records."""

    kept: tuple[int, ...]  # acknowledged, and good or bad as the verdict says
    missing: tuple[tuple[int, int], ...]  # number and size: acknowledged, thrown away, while others were kept
    is_news: bool  # the verdict has changed


class ReadBack:
    """Over all connections to one broker. Every record that the broker takes is passed through `step`."""

    def __init__(self, *, is_wanted: bool) -> None:
        self.verdict = Verdict.OPEN if is_wanted else Verdict.OFF
        self.why = ""  # it is unproven, in words
        self.proven_bytes = 0
        self._is_wanted = is_wanted
        self._phase = _Phase.IDLE
        self._shown: dict[int, _Shown] = {}
        self._unanswered: set[int] = set()  # shown, and not acknowledged yet
        self._wait_until_ns = 0
        self._next_ns = 0
        self._failures = self._lost_asking = self._lost_showing = 0
        self._too_large = 0  # bytes of the smallest record that was thrown away on this connection; 0: none was

    # -- the connection -----------------------------------------------------------------------------------------------

    def link_up(self, now_ns: int) -> None:
        self._stop()
        self._too_large = 0
        if self.verdict is Verdict.PROVEN:
            self._next_ns = now_ns

    def link_down(self, now_ns: int) -> bool:
        """Whether that is news: the broker hung up when it was asked, again, so that nothing can be proven."""
        was_asking = self._phase is _Phase.ASKING
        is_thrown_away = self._is_nothing_back()
        self._stop()
        self._lost_asking = self._lost_asking + 1 if was_asking else 0
        self._lost_showing += is_thrown_away
        if self._lost_showing >= LOST_SHOWING:
            return self._fail(now_ns, "what this box publishes there does not come back, and the connection ends")
        if self._lost_asking < LOST_ASKING:
            return False
        return self._fail(now_ns, "it ends the connection when this box asks to read its own records")

    def granted(self, is_granted: bool, now_ns: int) -> bool:
        """The broker's answer to SUBSCRIBE; whether that is news."""
        if self._phase is not _Phase.ASKING:
            return False
        self._lost_asking = 0
        if is_granted:
            self._phase = _Phase.SHOWING
            return False
        self._stop()
        return self._fail(now_ns, "it does not let this box read its own records")

    # -- records ------------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Something was asked or shown, and the answer is still to come."""
        return self._phase is not _Phase.IDLE

    def not_back(self) -> set[int]:
        """Shown, and not come back yet."""
        return {shown.seq for shown in self._shown.values() if not shown.is_back}

    def shows(self, seq: int) -> bool:
        return seq in self._shown

    def thrown_away(self, size: int) -> None:
        """One of that size was set aside because it never came back, while smaller ones did."""
        if size > self.proven_bytes:
            self._too_large = min(self._too_large or size, size)

    def is_too_large(self, size: int) -> bool:
        """Whether one that was no larger than this was thrown away on this connection."""
        return 0 < self._too_large <= size

    def step(self, size: int, now_ns: int) -> Step:
        """What to do with the next record, of so many bytes."""
        if self._phase is _Phase.IDLE:
            is_due = now_ns >= self._next_ns or (self.verdict is Verdict.PROVEN and size > self.proven_bytes)
            return Step.ASK if self._is_wanted and is_due else Step.SEND
        if self._phase is _Phase.SHOWING and len(self._shown) < SHOWN:
            return Step.SHOW
        return Step.WAIT

    def asked(self, now_ns: int) -> None:
        self._phase, self._wait_until_ns = _Phase.ASKING, now_ns + GRANT_WAIT_NS

    def sent(self, seq: int, payload: bytes) -> None:
        """One that must come back is under way."""
        self._shown[seq] = _Shown(seq, payload)
        self._unanswered.add(seq)

    def acked(self, seq: int, now_ns: int) -> None:
        self._unanswered.discard(seq)
        self._wait_until_ns = now_ns + SHOW_WAIT_NS

    def refused(self, seq: int) -> None:
        """The broker says no: that proves nothing about what it takes."""
        self._shown.pop(seq, None)
        self._unanswered.discard(seq)

    def heard(self, payload: bytes) -> None:
        """Something was published on the topic of this box's records."""
        for shown in self._shown.values():
            if shown.payload == payload:
                shown.is_back = True

    def outcome(self, now_ns: int) -> Outcome | None:
        """How it ended; None while it goes on, or nothing is shown."""
        if self._phase is _Phase.ASKING and now_ns >= self._wait_until_ns:
            self._stop()
            return Outcome((), (), self._fail(now_ns, "it does not answer when this box asks to read its own records"))
        if not self._shown or self._unanswered:
            return None
        if any(not shown.is_back for shown in self._shown.values()) and now_ns < self._wait_until_ns:
            return None
        shown = tuple(self._shown.values())
        self._stop()
        return self._judge(shown, now_ns)

    # -- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, shown: tuple[_Shown, ...], now_ns: int) -> Outcome:
        back = [one for one in shown if one.is_back]
        missing = [one for one in shown if not one.is_back]
        if back:
            is_news = self._prove(max(len(one.payload) for one in back), now_ns)
            return Outcome(tuple(one.seq for one in back), _sized(missing), is_news)
        if self.verdict is Verdict.PROVEN and min(len(one.payload) for one in shown) > self.proven_bytes:
            self._next_ns = now_ns  # larger ones than ever: whether it was their size, smaller ones will show
            return Outcome((), _sized(missing), False)
        is_news = self._fail(now_ns, "what this box publishes there does not come back")
        return Outcome(tuple(one.seq for one in missing), (), is_news)

    def _is_nothing_back(self) -> bool:
        """Something was acknowledged, nothing came back, and it was not a question of size."""
        shown = self._shown.values()
        if len(self._unanswered) == len(shown) or any(one.is_back for one in shown):
            return False
        return self.verdict is not Verdict.PROVEN or min(len(one.payload) for one in shown) <= self.proven_bytes

    def _prove(self, size: int, now_ns: int) -> bool:
        is_news = self.verdict is not Verdict.PROVEN
        self.verdict, self.why, self._failures, self._lost_showing = Verdict.PROVEN, "", 0, 0
        self.proven_bytes = max(self.proven_bytes, size)
        self._next_ns = now_ns + AGAIN_NS
        return is_news

    def _fail(self, now_ns: int, why: str) -> bool:
        is_news = self.verdict is not Verdict.UNPROVEN
        self.verdict, self.why, self.proven_bytes = Verdict.UNPROVEN, why, 0
        self._next_ns = now_ns + min(RETRY_NS[0] << min(self._failures, 16), RETRY_NS[1])
        self._failures += 1
        self._lost_showing = 0
        return is_news

    def _stop(self) -> None:
        self._phase = _Phase.IDLE
        self._shown.clear()
        self._unanswered.clear()


def unproven_words(protocol: str, topic: str, why: str) -> str:
    """For a person: what is not known, and what to do about it."""
    return f"{unproven(protocol, topic, why)}. {UNPROVEN_FIX}"


def unproven(protocol: str, topic: str, why: str) -> str:
    return (
        f"unproven: the broker takes records by MQTT {protocol}, and nothing proves that it keeps them: {why} ({topic})"
    )


UNPROVEN_FIX = (
    "Let this box write and read there in the broker's access list; or set sync.ack = 'consumer'; "
    "or sync.read_back = false to take its word"
)


def _sized(shown: list[_Shown]) -> tuple[tuple[int, int], ...]:
    return tuple((one.seq, len(one.payload)) for one in shown)
