"""From the outbox to the link: fills the window, and deletes what was delivered.

`ack = "puback"`: the broker's acknowledgement is delivery. `ack = "consumer"`: the broker's only frees the window; a
record is delivered when the consumer says on `.../ack` that it has it, and goes again when it did not say so in
time. That closes the gap between a broker's acknowledgement and its disk, and its silent refusals.

What a crash repeats: at most what was under way plus what was acknowledged and not yet deleted, and that sum is never
more than window + DELETE_BATCH, because no further record is sent before the deletions are committed. A power cut may
undo the last `SYNC_EVERY` commits of deletions on top.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.sync.mqtt_link import MqttLink
from edge_runtime.sync.outbox import Outbox
from edge_runtime.sync.outbox_lanes import Lanes

log = logging.getLogger(__name__)

DELETE_BATCH = 500
DELETE_AFTER_NS = 250 * MS  # acknowledged records wait so long for company: 4 commits a second at most
UNCONFIRMED_MOST = 10_000  # records the broker has and the consumer has not acknowledged
MOST_RANGES = 1000  # in one acknowledgement of a consumer


class Sender:
    """Used by the thread that owns outbox and link."""

    def __init__(
        self,
        outbox: Outbox,
        link: MqttLink,
        topic: str,
        clock: Clock,
        *,
        event_topic: str = "",
        waits_for_consumer: bool = False,
        resend_after_s: float = 60.0,
    ) -> None:
        self._outbox = outbox
        self._link = link
        self._topic = topic
        self._event_topic = event_topic
        self._clock = clock
        self._waits_for_consumer = waits_for_consumer
        self._resend_after_ns = round(resend_after_s * SECOND)
        self.lanes = Lanes(outbox.live, outbox.backlog)
        self._done: list[int] = []  # acknowledged, not yet deleted
        self._done_since_ns = 0
        self._unconfirmed: dict[int, int] = {}  # the broker has it, the consumer has not said so: seq -> since
        self.repeated = self.consumer_acks = self.bad_acks = 0

    # -- events -------------------------------------------------------------------------------------------------------

    def link_up(self) -> None:
        """The link is new: what is still stored goes again."""
        self.repeated += len(self.lanes.taken) - len(self._done)
        self._unconfirmed.clear()
        self.lanes.restart(self._outbox.last_seq)
        self.lanes.taken.update(self._done)  # they are delivered, a full disk merely keeps them from being deleted

    def outbox_renewed(self) -> None:
        """Another file lies under the outbox: numbers of the old one mean nothing now."""
        self._done.clear()
        self._unconfirmed.clear()
        self.lanes = Lanes(self._outbox.live, self._outbox.backlog)
        self.lanes.restart(self._outbox.last_seq)

    def acked(self, seq: int) -> None:
        """The broker has it."""
        if seq not in self.lanes.taken:
            return  # the consumer was quicker than the broker
        if self._waits_for_consumer:
            self._unconfirmed[seq] = self._clock()
            return
        if not self._done:
            self._done_since_ns = self._clock()
        self._done.append(seq)

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
        with self._outbox.transaction():
            for first, last in spans:
                self._outbox.settle_span(first, last)
        for first, last in spans:
            confirmed = [seq for seq in self.lanes.taken if first <= seq <= last]
            self.lanes.settled(confirmed)
            for seq in confirmed:
                self._unconfirmed.pop(seq, None)

    # -- turning ------------------------------------------------------------------------------------------------------

    def fill(self) -> int:
        """Send as much as window and disk allow. Answers how many."""
        sent = 0
        self._resend_unconfirmed()
        while self._link.room and self._may_send():
            record = self.lanes.next(self._clock())
            if record is None:
                break
            if not self._link.publish(self._topic, record.payload, token=record.seq):
                break  # the link is lost: all goes again over the next one
            if self._event_topic and record.kind == "event":  # a copy for those who only want alarms
                self._link.publish(self._event_topic, record.payload, qos=0)
            sent += 1
        return sent

    def _may_send(self) -> bool:
        if self._waits_for_consumer:
            return len(self.lanes.taken) < UNCONFIRMED_MOST
        return len(self._done) < DELETE_BATCH + self._link.room  # that is: done + under way < batch + window

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

    def is_flush_due(self) -> bool:
        waited_ns = self._clock() - self._done_since_ns
        return len(self._done) >= DELETE_BATCH or (bool(self._done) and waited_ns >= DELETE_AFTER_NS)

    def flush(self) -> None:
        """Delete what was delivered."""
        if self._done:
            with self._outbox.deletion():
                self.settle()
            self.settled()

    def settle(self) -> None:
        """The deletions, inside a transaction of the caller; `settled` must follow its commit."""
        self._outbox.settle(self._done)

    def settled(self) -> None:
        self.lanes.settled(self._done)
        self._done = []

    def report(self) -> Mapping[str, Any]:
        return {
            "taken": len(self.lanes.taken),
            "acknowledged_not_deleted": len(self._done),
            "unconfirmed": len(self._unconfirmed),
            "repeated": self.repeated,
            "consumer_acks": self.consumer_acks,
            "bad_acks": self.bad_acks,
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
