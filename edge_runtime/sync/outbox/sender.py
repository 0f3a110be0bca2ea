"""From the outbox to the link: fills the window, deletes what was delivered, sets aside what the broker does not take.

`ack = "puback"`: the broker's acknowledgement is delivery, once `ReadBack` has shown that it keeps what it
acknowledges; until then what it took is kept beside the queue. `ack = "consumer"`: the broker's only frees the window;
a record is delivered when the consumer says on `.../ack` that it has it, and goes again when it did not say so in time.
That closes the gap between a broker's acknowledgement and its disk, and its silent refusals.

A record that is refused goes to `Doubts`, and the others go on. Where the connection ends again and again with the same
records under way, these go one at a time: the one that was alone when it ended again is the one.

What a crash repeats: at most what was under way plus what was acknowledged and not yet deleted, and that sum is never
more than window + DELETE_BATCH, because no further record is sent before the deletions are committed. A power cut may
undo the last `SYNC_EVERY` commits of deletions on top.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.recording.pruned import ranges
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.read_back import ReadBack, Step, Verdict, unproven_words
from edge_runtime.sync.mqtt.reasons import (
    LOST_WITH_IT,
    NOT_KEPT,
    SESSION_TAKEN_OVER,
    TOO_LARGE_HERE,
    About,
    about,
    in_words,
)
from edge_runtime.sync.outbox.aside import Aside, Why
from edge_runtime.sync.outbox.doubts import Doubts
from edge_runtime.sync.outbox.lanes import Lanes
from edge_runtime.sync.outbox.outbox import Outbox, Waiting

log = logging.getLogger(__name__)

DELETE_BATCH = 500
DELETE_AFTER_NS = 250 * MS  # acknowledged records wait so long for company: 4 commits a second at most
UNCONFIRMED_MOST = 10_000  # records the broker has and the consumer has not acknowledged
MOST_RANGES = 1000  # in one acknowledgement of a consumer
DUBIOUS_NS = 120 * SECOND  # after a lost connection, one at a time for so long at most
TELL_EVERY_NS = 60 * SECOND  # events about records set aside: the broker may refuse these, too

Tell = Callable[[EventKind, Mapping[str, Any]], object]


class Sender:
    """Used by the thread that owns outbox and link. tell(event, detail): something that the cloud should hear of."""

    def __init__(
        self,
        outbox: Outbox,
        link: MqttLink,
        topic: str,
        clock: Clock,
        *,
        aside: Aside,
        event_topic: str = "",
        waits_for_consumer: bool = False,
        reads_back: bool = True,
        resend_after_s: float = 60.0,
        tell: Tell = lambda event, detail: None,
    ) -> None:
        self._outbox = outbox
        self._link = link
        self._topic = topic
        self._event_topic = event_topic
        self._clock = clock
        self._waits_for_consumer = waits_for_consumer
        self._resend_after_ns = round(resend_after_s * SECOND)
        self._tell = tell
        self.lanes = Lanes(outbox.live, outbox.backlog)
        self.aside = aside
        self.proof = ReadBack(is_wanted=reads_back and not waits_for_consumer)
        self.doubts = Doubts()
        self._held: Waiting | None = None  # handed out by the lanes, and it is not its time yet
        self._sent: dict[int, int] = {}  # under way on this connection: seq -> bytes
        self._lost: set[int] = set()  # were under way when the last connection ended
        self._dubious: set[int] = set()  # were so more than once: these go one at a time
        self._dubious_until_ns = 0
        self._done: list[int] = []  # acknowledged, not yet deleted
        self._done_since_ns = 0
        self._unproven: list[int] = []  # acknowledged, and to be kept
        self._condemned: list[tuple[int, int]] = []  # to be set aside: seq, code
        self._returning: set[Why] = set()  # what lies aside goes into the queue again
        self._untold: list[tuple[int, int]] = []
        self._was_unproven = False
        self._tell_after_ns = 0
        self._unconfirmed: dict[int, int] = {}  # the broker has it, the consumer has not said so: seq -> since
        self.repeated = self.consumer_acks = self.bad_acks = self.set_aside = 0

    # -- events -------------------------------------------------------------------------------------------------------

    def link_up(self) -> None:
        """The link is new: what is still stored goes again."""
        now = self._clock()
        ours = {*self._done, *self._unproven, *(seq for seq, _ in self._condemned)}
        self.repeated += len(self.lanes.taken - ours)
        self._unconfirmed.clear()
        self._held = None
        self._sent.clear()
        self.lanes.restart(self._outbox.last_seq)
        # delivered, or taken out: a full disk merely keeps them from being moved; doubtful ones have their own time
        self.lanes.taken.update(ours, self.doubts)
        self.doubts.link_up(now)
        self.proof.link_up(now)

    def link_down(self, code: int | None) -> None:
        """The connection ended. code: what the broker gave as its reason; None: nothing."""
        now = self._clock()
        # mosquitto acknowledges one that is too large, and hangs up then: what did not come back counts as under way
        lost, self._sent = self._sent.keys() | self.proof.not_back(), {}
        if self.proof.link_down(now):
            self._tell_proof()
        if code == SESSION_TAKEN_OVER or (code is not None and about(code) is About.MOMENT):
            self._lost.clear()
            self._dubious.clear()
            return
        self._dubious |= lost & self._lost
        self._dubious_until_ns = now + DUBIOUS_NS
        self._lost = lost
        if len(lost) == 1 and self._link.lost_tokens <= 1:
            (seq,) = lost
            self._dubious.discard(seq)  # it has a time of its own now
            is_said = code is not None and about(code) is About.MESSAGE
            self._doubt(seq, code if is_said and code else LOST_WITH_IT)
            if self.doubts.strikes(seq) > 1:
                self._link.rival.explained()  # the same one again: it is the record, and not another client

    def outbox_renewed(self) -> None:
        """Another file lies under the outbox: numbers of the old one mean nothing now."""
        for numbers in (self._done, self._unproven, self._condemned, self._untold):
            numbers.clear()
        for known in (self._unconfirmed, self._sent, self._lost, self._dubious):
            known.clear()
        self._held = None
        self.doubts = Doubts()
        self.aside.outbox_renewed()
        self.lanes = Lanes(self._outbox.live, self._outbox.backlog)
        self.lanes.restart(self._outbox.last_seq)
        self.proof.link_up(self._clock())

    def acked(self, seq: int) -> bool:
        """The broker has it, or says so. False where it has only said so yet."""
        self._sent.pop(seq, None)
        self._dubious.discard(seq)
        if seq not in self.lanes.taken:
            return True  # the consumer was quicker than the broker
        now = self._clock()
        if self.proof.shows(seq):
            self.proof.acked(seq, now)
            return False
        self.doubts.acked(seq, now)
        if self._waits_for_consumer:
            self._unconfirmed[seq] = now
        else:
            self._took(seq, now)
        return self.proof.verdict is not Verdict.UNPROVEN

    def _took(self, seq: int, now_ns: int) -> None:
        if not (self._done or self._unproven):
            self._done_since_ns = now_ns
        (self._unproven if self.proof.verdict is Verdict.UNPROVEN else self._done).append(seq)

    def refused(self, seq: int, code: int) -> None:
        """The broker does not take it, by PUBACK."""
        self._sent.pop(seq, None)
        self._dubious.discard(seq)
        self.proof.refused(seq)
        if seq in self.lanes.taken:
            self._doubt(seq, code)

    def listening(self, is_granted: bool) -> None:
        """The broker's answer to the question whether this box may read its own records."""
        if self.proof.granted(is_granted, self._clock()):
            self._tell_proof()

    def heard(self, payload: bytes) -> None:
        """One of this box's own records came back."""
        self.proof.heard(payload)

    def consumer_acked(self, payload: bytes) -> None:
        """A message on `.../ack`: these are delivered. One that makes no sense is counted and changes nothing."""
        try:
            spans = parse_ack(payload, self._outbox.epoch, self._outbox.last_seq)
        except ValueError as err:
            self.bad_acks += 1
            log.warning("ack.refused %s", err)
            return
        self.consumer_acks += 1
        if not self._waits_for_consumer:
            return
        self.aside.begin()
        with self._outbox.transaction():
            for first, last in spans:
                self._outbox.settle_span(first, last)
                self.aside.settle_span(first, last)
        self.aside.committed()
        for first, last in spans:
            confirmed = [seq for seq in self.lanes.taken if first <= seq <= last]
            self.lanes.settled(confirmed)
            for seq in confirmed:
                self._unconfirmed.pop(seq, None)

    def retry(self, why: Why = Why.REFUSED) -> int:
        """Put what lies aside into the queue again; how many there are."""
        self._returning.add(why)
        return self.aside.counts[why]

    # -- turning ------------------------------------------------------------------------------------------------------

    def fill(self) -> int:
        """Send as much as window and disk allow. Answers how many."""
        sent = 0
        if self._returning:
            self._bring_back()
        if self.proof.is_busy:
            self._look_at_proof()
        self._resend_unconfirmed()
        while self._link.room and self._may_send():
            record = self._next()
            if record is None or not self._send(record):
                break  # the link is lost: all goes again over the next one; or it is not the time
            sent += 1
        return sent

    def _next(self) -> Waiting | None:
        """The record to send now: one that waits for its turn, a doubtful one whose time has come, or a new one."""
        if self._held:
            held, self._held = self._held, None
            return held
        now = self._clock()
        if self._dubious and (self._sent or now >= self._dubious_until_ns):
            if self._sent:
                return None
            self._dubious.clear()
        if self.doubts and (doubt := self.doubts.due(now)):
            if self._sent and doubt.must_be_alone:
                return None
            self.doubts.tried(doubt, now)
            if record := self._outbox.record(doubt.seq):
                return record
            self.doubts.forget(doubt.seq)  # the consumer has it
        if self.doubts and self._sent and any(self.doubts.is_alone(seq) for seq in self._sent):
            return None
        return self.lanes.next(now) if self.doubts.may_take_more(now) else None

    def _send(self, record: Waiting) -> bool:
        """False: not now; it stays at hand."""
        size, now = len(record.payload), self._clock()
        if not self._link.fits(self._topic, size):
            self._doubt(record.seq, TOO_LARGE_HERE)
            return True
        if self.proof.is_too_large(size):
            self._doubt(record.seq, NOT_KEPT)
            return True
        step = self.proof.step(size, now)
        if step is Step.ASK and self._link.listen(self._topic):
            self.proof.asked(now)
        if step in (Step.ASK, Step.WAIT) or not self._link.publish(self._topic, record.payload, token=record.seq):
            self._held = record
            return False
        self._sent[record.seq] = size
        if step is Step.SHOW:
            self.proof.sent(record.seq, record.payload)
        if self._event_topic and record.kind == "event":  # a copy for those who only want alarms
            self._link.publish(self._event_topic, record.payload, qos=0)
        return True

    def _may_send(self) -> bool:
        if self._waits_for_consumer:
            return len(self.lanes.taken) < UNCONFIRMED_MOST
        # that is: done + under way < batch + window
        return len(self._done) + len(self._unproven) < DELETE_BATCH + self._link.room

    def _resend_unconfirmed(self) -> None:
        """What the consumer did not acknowledge in time goes again, in order."""
        if not self._unconfirmed:
            return
        oldest_ns = next(iter(self._unconfirmed.values()))
        if self._clock() - oldest_ns <= self._resend_after_ns:
            return
        log.warning("ack.missing the consumer did not acknowledge count=%d records: again", len(self._unconfirmed))
        self.repeated += len(self._unconfirmed)
        self.lanes.settled(self._unconfirmed)
        self._unconfirmed.clear()
        self.lanes.again()

    @property
    def is_careful(self) -> bool:
        """Records go one at a time, to find the one at which connections end: nothing else should be under way."""
        return bool(self._dubious) or self.doubts.has_lone

    # -- what is not as it should be ----------------------------------------------------------------------------------

    def _doubt(self, seq: int, code: int) -> bool:
        """It was refused; whether it is to be set aside."""
        if not self.doubts.refused(seq, code, self._clock()):
            return False
        self._condemned.append((seq, code))
        self._link.rival.explained()
        return True

    def _look_at_proof(self) -> None:
        now = self._clock()
        outcome = self.proof.outcome(now)
        if outcome is None:
            return
        self._link.stop_listening()
        for seq in outcome.kept:
            self.doubts.acked(seq, now)
            self._took(seq, now)
        if outcome.kept and self.proof.verdict is Verdict.PROVEN:
            self._link.worked()
        for seq, size in outcome.missing:
            if self._doubt(seq, NOT_KEPT):
                self.proof.thrown_away(size)
        if outcome.is_news:
            self._tell_proof()
        if self.proof.verdict is not Verdict.PROVEN:
            return
        if self.aside.counts[Why.UNPROVEN]:
            self.retry(Why.UNPROVEN)
        if self.aside.gone[Why.UNPROVEN]:
            self.aside.count_gone()

    def _tell_proof(self) -> None:
        verdict = self.proof.verdict
        if verdict is Verdict.PROVEN:
            log.info("uplink.proven protocol=%s bytes=%d", self._link.protocol, self.proof.proven_bytes)
        else:
            log.warning("uplink.unproven protocol=%s %s", self._link.protocol, self.proof.why)
        if verdict is Verdict.UNPROVEN or self._was_unproven:
            kind = EventKind.UPLINK_UNPROVEN if verdict is Verdict.UNPROVEN else EventKind.UPLINK_PROVEN
            self._tell(kind, {"protocol": self._link.protocol, "why": self.proof.why})
        self._was_unproven = verdict is Verdict.UNPROVEN

    def _bring_back(self) -> None:
        for why in tuple(self._returning):
            is_of_use = why is Why.REFUSED or self.proof.verdict is Verdict.PROVEN
            if is_of_use and self.aside.bring_back(why):
                self.lanes.again()
            else:
                self._returning.discard(why)

    def trouble(self) -> str:
        """Why not all is as it should be, in words, or nothing."""
        parts = self._words_of_proof(), self.doubts.trouble(), self._words_of_aside()
        return "; ".join(part for part in parts if part)

    def _words_of_proof(self) -> str:
        if self.proof.verdict is not Verdict.UNPROVEN:
            return ""
        kept = self.aside.counts[Why.UNPROVEN] + len(self._unproven)
        return f"{unproven_words(self._link.protocol, self._topic, self.proof.why)}; {kept} are kept here"

    def _words_of_aside(self) -> str:
        count = self.aside.counts[Why.REFUSED]
        return f"{count} records are set aside, the broker refuses them: edge-runtime spool status" if count else ""

    # -- deleting, and setting aside ----------------------------------------------------------------------------------

    def is_flush_due(self) -> bool:
        if self._condemned:
            return True
        taken = len(self._done) + len(self._unproven)
        return taken >= DELETE_BATCH or (taken > 0 and self._clock() - self._done_since_ns >= DELETE_AFTER_NS)

    def flush(self) -> None:
        """Delete what was delivered; set aside what was refused or may not have been kept."""
        if self._done or self._unproven or self._condemned:
            is_pure = not (self._unproven or self._condemned)
            with self._outbox.deletion() if is_pure else self._outbox.transaction():
                self.settle()
            self.settled()

    def settle(self) -> None:
        """The deletions, inside a transaction of the caller; `settled` must follow its commit."""
        self._outbox.settle(self._done)
        self.aside.begin()
        if self._unproven:
            self.aside.put(self._unproven, Why.UNPROVEN, self.proof.why)
        for code in {code for _, code in self._condemned}:
            self.aside.put([seq for seq, why in self._condemned if why == code], Why.REFUSED, in_words(code))

    def settled(self) -> None:
        self.lanes.settled(self._done)
        self.lanes.settled(self._unproven)
        self.lanes.settled(seq for seq, _ in self._condemned)
        condemned, self._condemned = self._condemned, []
        self._done, self._unproven = [], []
        self.set_aside += len(condemned)
        self._untold += condemned
        self.tell_aside()
        self.aside.committed()  # the last, because it may need the disk again

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

    def report(self) -> Mapping[str, Any]:
        return {
            "taken": len(self.lanes.taken),
            "acknowledged_not_deleted": len(self._done),
            "unconfirmed": len(self._unconfirmed),
            "repeated": self.repeated,
            "consumer_acks": self.consumer_acks,
            "bad_acks": self.bad_acks,
            "set_aside": self.set_aside,
            "doubtful": len(self.doubts),
            "proof": {"verdict": self.proof.verdict.value, "why": self.proof.why, "bytes": self.proof.proven_bytes},
        }


def parse_ack(payload: bytes, epoch: str, last_seq: int) -> list[tuple[int, int]]:
    """`{"epoch": "..", "seq": 17, "ranges": [[20, 24]]}`: all up to 17, and 20 to 24, are safe with the consumer.

    An acknowledgement of another epoch means nothing to us and is an empty list. Raises ValueError.
    """
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as err:
        raise ValueError(f"acknowledgement is not JSON: {err}") from err
    if not isinstance(found, dict) or not isinstance(found.get("epoch"), str):
        raise ValueError("acknowledgement needs epoch (text) and seq (number)")
    if found["epoch"] != epoch:
        return []
    spans = [[1, found.get("seq")], *_listed(found.get("ranges", []))]
    for first, last in spans:
        if not (_is_count(first) and _is_count(last)) or last > last_seq:
            raise ValueError(f"acknowledgement names records {first} to {last}; the newest is {last_seq}")
    return [(first, last) for first, last in spans if first <= last]


def _listed(found: object) -> list[list[Any]]:
    if not isinstance(found, list) or len(found) > MOST_RANGES:
        raise ValueError(f"ranges must be a list of at most {MOST_RANGES} pairs")
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in found):
        raise ValueError("ranges must be pairs [first, last]")
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
