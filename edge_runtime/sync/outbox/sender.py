"""From the outbox to the link: fills the window, deletes what was delivered, sets aside what the broker does not take.

`ack = "puback"`: the broker's acknowledgement is delivery, once `ReadBack` has shown that it keeps what it
acknowledges; until then what it took is kept beside the queue. `ack = "consumer"`: the broker's only frees the window;
a record is delivered when the consumer says on `.../ack` that it has it, and goes again when it did not say so in time.

A record that is refused goes to `Doubts`, and the others go on.

What a crash repeats: at most what was under way plus what was acknowledged and not yet deleted, and that sum is never
more than window + DELETE_BATCH, because no further record is sent before the deletions are committed. A power cut may
undo the last `SYNC_EVERY` commits of deletions on top.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.read_back import ReadBack, Step, Verdict, unproven_words
from edge_runtime.sync.mqtt.reasons import LOST_WITH_IT, NOT_KEPT, SESSION_TAKEN_OVER, TOO_LARGE_HERE, About, about
from edge_runtime.sync.outbox.aside import Aside, Why
from edge_runtime.sync.outbox.consumer_acks import Unconfirmed, parse_ack
from edge_runtime.sync.outbox.doubts import Doubts
from edge_runtime.sync.outbox.lanes import Lanes
from edge_runtime.sync.outbox.queue import Queue, Waiting
from edge_runtime.sync.outbox.settlement import DELETE_BATCH, Settlement, Tell
from edge_runtime.sync.outbox.under_way import UnderWay

log = logging.getLogger(__name__)

UNCONFIRMED_MOST = 10_000  # records the broker has and the consumer has not acknowledged


class Sender:
    """Used by the thread that owns outbox and link. tell(event, detail): something that the cloud should hear of."""

    def __init__(
        self,
        outbox: Queue,
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
        self._tell = tell
        self.lanes = Lanes(outbox.live, outbox.backlog)
        self.aside = aside
        self.proof = ReadBack(is_wanted=reads_back and not waits_for_consumer)
        self.doubts = Doubts()
        self.settlement = Settlement(outbox, self.lanes, aside, self.proof, clock, tell)
        self._under_way = UnderWay()
        self._unconfirmed = Unconfirmed(round(resend_after_s * SECOND))
        self._held: Waiting | None = None  # handed out by the lanes, and it is not its time yet
        self._returning: set[Why] = set()  # what lies aside goes into the queue again
        self._was_unproven = False
        self.repeated = self.consumer_acks = self.bad_acks = 0

    # -- events -------------------------------------------------------------------------------------------------------

    def link_up(self) -> None:
        """The link is new: what is still stored goes again."""
        now = self._clock()
        ours = self.settlement.numbers()
        self.repeated += len(self.lanes.taken - ours)
        self._unconfirmed.clear()
        self._held = None
        self._under_way.link_up()
        self.lanes.restart(self._outbox.last_seq)
        # delivered, or taken out: a full disk merely keeps them from being moved; doubtful ones have their own time
        self.lanes.taken.update(ours, self.doubts)
        self.doubts.link_up(now)
        self.proof.link_up(now)

    def link_down(self, code: int | None) -> None:
        """The connection ended. code: what the broker gave as its reason; None: nothing."""
        now = self._clock()
        # mosquitto acknowledges one that is too large, and hangs up then: what did not come back counts as under way
        lost = self._under_way.link_down(self.proof.not_back())
        if self.proof.link_down(now):
            self._tell_proof()
        if code == SESSION_TAKEN_OVER or (code is not None and about(code) is About.MOMENT):
            self._under_way.absolve()
            return
        self._under_way.suspect(lost, now)
        if len(lost) == 1 and self._link.lost_tokens <= 1:
            (seq,) = lost
            self._under_way.single_out(seq)
            is_said = code is not None and about(code) is About.MESSAGE
            self._doubt(seq, code if is_said and code else LOST_WITH_IT)
            if self.doubts.strikes(seq) > 1:
                self._link.rival.explained()  # the same one again: it is the record, and not another client

    def outbox_renewed(self) -> None:
        """Another file lies under the outbox: numbers of the old one mean nothing now."""
        self.settlement.outbox_renewed()
        self._unconfirmed.clear()
        self._under_way = UnderWay()
        self._held = None
        self.doubts = Doubts()
        self.aside.outbox_renewed()
        self.lanes.restart(self._outbox.last_seq)
        self.proof.link_up(self._clock())

    def acked(self, seq: int) -> bool:
        """The broker has it, or says so. False where it has only said so yet."""
        self._under_way.answered(seq)
        if seq not in self.lanes.taken:
            return True  # the consumer was quicker than the broker
        now = self._clock()
        if self.proof.shows(seq):
            self.proof.acked(seq, now)
            return False
        self.doubts.acked(seq, now)
        if self._waits_for_consumer:
            self._unconfirmed.add(seq, now)
        else:
            self.settlement.took(seq, now)
        return self.proof.verdict is not Verdict.UNPROVEN

    def refused(self, seq: int, code: int) -> None:
        """The broker does not take it, by PUBACK."""
        self._under_way.answered(seq)
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
            self._unconfirmed.confirmed(confirmed)

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
        if self._under_way.must_wait(now):
            return None
        if self.doubts and (doubt := self.doubts.due(now)):
            if self._under_way and doubt.must_be_alone:
                return None
            self.doubts.tried(doubt, now)
            if record := self._outbox.record(doubt.seq):
                return record
            self.doubts.forget(doubt.seq)  # the consumer has it
        if self.doubts and any(self.doubts.is_alone(seq) for seq in self._under_way):
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
        self._under_way.sent(record.seq)
        if step is Step.SHOW:
            self.proof.sent(record.seq, record.payload)
        if self._event_topic and record.kind == "event":  # a copy for those who only want alarms
            self._link.publish(self._event_topic, record.payload, qos=0)
        return True

    def _may_send(self) -> bool:
        if self._waits_for_consumer:
            return len(self.lanes.taken) < UNCONFIRMED_MOST
        # that is: done + under way < batch + window
        return self.settlement.acknowledged < DELETE_BATCH + self._link.room

    def _resend_unconfirmed(self) -> None:
        """What the consumer did not acknowledge in time goes again, in order."""
        overdue = self._unconfirmed.overdue(self._clock())
        if not overdue:
            return
        log.warning("ack.missing the consumer did not acknowledge count=%d records: again", len(overdue))
        self.repeated += len(overdue)
        self.lanes.settled(overdue)
        self.lanes.again()

    @property
    def is_careful(self) -> bool:
        """Records go one at a time, to find the one at which connections end: nothing else should be under way."""
        return self._under_way.is_careful or self.doubts.has_lone

    # -- what is not as it should be ----------------------------------------------------------------------------------

    def _doubt(self, seq: int, code: int) -> bool:
        """It was refused; whether it is to be set aside."""
        if not self.doubts.refused(seq, code, self._clock()):
            return False
        self.settlement.condemn(seq, code)
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
            self.settlement.took(seq, now)
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
        kept = self.aside.counts[Why.UNPROVEN] + self.settlement.unproven
        return f"{unproven_words(self._link.protocol, self._topic, self.proof.why)}; {kept} are kept here"

    def _words_of_aside(self) -> str:
        count = self.aside.counts[Why.REFUSED]
        return f"{count} records are set aside, the broker refuses them: edge-runtime spool status" if count else ""

    def report(self) -> Mapping[str, Any]:
        return {
            "taken": len(self.lanes.taken),
            "acknowledged_not_deleted": self.settlement.done,
            "unconfirmed": len(self._unconfirmed),
            "repeated": self.repeated,
            "consumer_acks": self.consumer_acks,
            "bad_acks": self.bad_acks,
            "set_aside": self.settlement.set_aside,
            "doubtful": len(self.doubts),
            "proof": {"verdict": self.proof.verdict.value, "why": self.proof.why, "bytes": self.proof.proven_bytes},
        }
