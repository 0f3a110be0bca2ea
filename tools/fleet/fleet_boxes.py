"""A box as far as the cloud can see it: the product's own outbox, sender and link over a file of its own, fed with
parts that were never made. Passive, like the link: a herd turns hundreds of them in one thread.

Faults are part of it: a crash and a new start, a cut cable, a wall clock that jumps, a box that falls silent.
"""

from __future__ import annotations

import json
import logging
import random
import socket
import sqlite3
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_link import Address, RovingLink
from fleet_records import content_of

from edge_runtime.core.clock import MS, SECOND, Clock, monotonic_ns
from edge_runtime.core.events import EventKind
from edge_runtime.recording.reader import iso_utc
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.mqtt.settings import LinkSettings, Message
from edge_runtime.sync.outbox.aside import Aside
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.schema import OUTBOX
from edge_runtime.sync.outbox.sender import Sender
from edge_runtime.sync.records.format import (
    LIVE,
    Draft,
    Kind,
    RecordFormat,
    decision_record,
    outcome_record,
    own_event,
    own_record,
)
from edge_runtime.sync.records_link import STATE_SCHEMA

log = logging.getLogger(__name__)

TURN_NS = 500 * MS  # a box is turned at least so often, for its timers
MOST_ASIDE_BYTES = 64 << 20
METRICS_EVERY = 30  # groups of records
REJECT_FROM = 0.8
LINES_OF = 10  # boxes a line
SITES = 10
DIGEST = {"model_digest": "d" * 64, "config_digest": "c" * 64}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for all boxes of a run."""

    addresses: Sequence[Address]
    folder: Path
    rate: float = 1.0  # records a second and box
    group_s: float = 2.0  # one commit for the records of so long
    window: int = 50
    keepalive_s: int = 30
    resend_after_s: float = 20.0
    user: str = ""
    password_file: str = ""
    seed: int = 1


@dataclass(slots=True)
class Tally:
    """What happened to the boxes of one process."""

    counts: Counter[str] = field(default_factory=Counter)
    puback_ms: array[float] = field(default_factory=lambda: array("f"))
    safe_ms: array[float] = field(default_factory=lambda: array("f"))  # made to named by the consumer


@dataclass(frozen=True, slots=True)
class _Witnessed(RecordFormat):
    """Notes what is written; the ledger has it once it is on the disk."""

    noted: list[str] = field(default_factory=list)

    def encode(self, draft: Draft, epoch: str, seq: int) -> bytes:
        payload = RecordFormat.encode(self, draft, epoch, seq)
        self.noted.append(f"{self.box},{epoch},{seq},{content_of(payload)}\n")
        return payload


class _TimedLink(RovingLink):
    """Knows when each record was sent."""

    sent_ns: dict[int, int]

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, token: int | None = None
    ) -> bool:
        is_sent = super().publish(topic, payload, qos=qos, retain=retain, token=token)
        if is_sent and token is not None:
            self.sent_ns[token] = self.now_ns()
        return is_sent


class SimBox:
    """open, turn, crash. `ledger` is called with lines `box,epoch,seq,content` once they are durable."""

    def __init__(self, plan: Plan, number: int, ledger: Callable[[list[str]], None], tally: Tally) -> None:
        self.name = f"box-{number:04d}"
        self.number = number
        self._plan = plan
        self._ledger = ledger
        self._tally = tally
        self._rng = random.Random(f"{plan.seed} {number}")
        self._base = f"edge/site-{number // LINES_OF % SITES}/line-{number // LINES_OF}/{self.name}"
        self._jump_ns = 0  # how wrong the wall clock is
        self._boots = self._parts = self._groups = 0
        self._witness = _Witnessed(self.name, "sim")
        self._made: deque[tuple[int, int]] = deque()  # last seq and when, of each group that is not yet safe
        self._acks: list[bytes] = []
        self._outbox: Outbox | None = None
        self._clock: Clock = monotonic_ns
        self.is_making = True
        self.next_make_ns = 0

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Power on. Raises OSError, sqlite3.Error."""
        self._boots += 1
        boot_ns = time.monotonic_ns()
        self._clock = lambda: time.monotonic_ns() - boot_ns + SECOND
        self._wall = WallClock(self._clock, lambda: time.time_ns() + self._jump_ns)
        folder = self._plan.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        self._outbox = Outbox(folder / OUTBOX, self._witness, self._wall)
        self._link = self._make_link()
        self._sender = Sender(
            self._outbox,
            self._link,
            f"{self._base}/rec",
            self._clock,
            aside=Aside(self._outbox, MOST_ASIDE_BYTES, self._wall),
            event_topic=f"{self._base}/event",
            waits_for_consumer=True,
            resend_after_s=self._plan.resend_after_s,
        )
        self._outbox.open()
        self._write_ledger()
        self._sender.outbox_renewed()
        self._acks.clear()
        self._made.clear()
        self.next_make_ns = time.monotonic_ns() + round(self._rng.random() * self._plan.group_s * SECOND)

    def crash(self) -> None:
        """Power off: nothing is said to anybody, and only the file remains."""
        if self._outbox is None:
            return
        self._account(len(self._sender.lanes.taken))  # it was under way, and goes again
        self._link.cut()
        self._link.close(timeout_s=0.0)
        self._outbox.close()
        self._outbox = None

    def close(self) -> None:
        """Goodbye in good order."""
        if self._outbox is None:
            return
        self._account(0)
        self._link.close(Message(f"{self._base}/state", self._state("offline", "stopped"), retain=True))
        self._outbox.close()
        self._outbox = None

    def _account(self, again: int) -> None:
        counts, outbox = self._tally.counts, self._outbox
        assert outbox is not None
        counts["resent"] += self._sender.repeated + again
        counts["reconnects"] += max(0, self._link.connects - 1)
        counts["published"] += self._link.published
        counts["consumer_acks"] += self._sender.consumer_acks
        counts["bad_acks"] += self._sender.bad_acks
        counts["most_under_way"] = max(counts["most_under_way"], self._link.report()["most_under_way"])

    @property
    def is_open(self) -> bool:
        return self._outbox is not None

    @property
    def waiting(self) -> int:
        return self._outbox.waiting if self._outbox else 0

    @property
    def socket(self) -> socket.socket | None:
        """What to poll; None without a link."""
        return self._link.socket if self._outbox else None

    # -- faults -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        if self._outbox is not None:
            self._link.cut()

    def jump(self, seconds: float) -> None:
        """The wall clock is stepped."""
        self._jump_ns += round(seconds * SECOND)
        self._wall.refresh()

    # -- turning ------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """What the sync daemon's thread does in one round. Raises sqlite3.Error, OSError."""
        outbox = self._outbox
        if outbox is None:
            return
        if self.is_making and time.monotonic_ns() >= self.next_make_ns:
            self._make_group(outbox)
        while self._acks:
            self._hear_ack(self._acks.pop(0))
        self._sender.lanes.added(outbox.last_seq)
        self._sender.fill()
        self._link.rove()
        self._link.turn(0.0)

    def _make_group(self, outbox: Outbox) -> None:
        """The records of `group_s`, in one commit. Pairs of decision and outcome, so the count is even."""
        plan, now = self._plan, time.monotonic_ns()
        self.next_make_ns = max(self.next_make_ns + round(plan.group_s * SECOND), now)
        self._groups += 1
        drafts: list[Draft] = []
        for _ in range(max(1, round(plan.rate * plan.group_s / 2))):
            drafts += self._part()
        if self._groups % METRICS_EVERY == 0:
            drafts.append(own_record(Kind.METRICS, {"box": None, "sync": self._link.report()}, self._wall))
        if self._rng.random() < 0.01:
            drafts.append(own_event(EventKind.OPERATOR_HOLD, {"by": "operator", "why": "a herd's life"}, self._wall))
        try:
            with outbox.transaction():
                outbox.add(drafts)
        except sqlite3.Error:
            self._witness.noted.clear()
            raise
        self._write_ledger()
        self._made.append((outbox.last_seq, now))

    def _write_ledger(self) -> None:
        self._tally.counts["made"] += len(self._witness.noted)
        self._ledger(list(self._witness.noted))
        self._witness.noted.clear()

    def _part(self) -> list[Draft]:
        self._parts += 1
        score, now = self._rng.betavariate(2, 8), self._clock()
        row: dict[str, Any] = {
            "id": self._parts,
            "run": self._boots,
            "boot_id": self._boots,
            "part_id": self._parts,
            "trigger_ns": now - 80 * MS,
            "trigger_utc_ns": self._wall.utc(now - 80 * MS),
            "time_quality": self._wall.quality.value,
            "captured_ns": now - 70 * MS,
            "decided_ns": now - 40 * MS,
            "verdict": "reject" if score >= REJECT_FROM else "accept",
            "cause": "model",
            "reason": f"scratch {score:.2f} {'>=' if score >= REJECT_FROM else '<'} {REJECT_FROM}",
            "score": round(score, 4),
            "encoder": 1000 * self._parts,
            "model": "scratch@1",
            "recovered": 0,
            "timings_ms": '{"invoke": 0.8, "total": 11.2}',
            "regions": None,
            "outcome": "fired" if score >= REJECT_FROM else "passed",
            "outcome_ns": now,
            "outcome_encoder": 1000 * self._parts + 1200,
            **DIGEST,
        }
        return [decision_record(row, 0, LIVE), outcome_record(row, LIVE)]

    # -- the link -----------------------------------------------------------------------------------------------------

    def _make_link(self) -> _TimedLink:
        plan = self._plan
        ahead = self.number % len(plan.addresses)
        addresses = [*plan.addresses[ahead:], *plan.addresses[:ahead]]
        (host, port), others = addresses[0], addresses[1:]
        settings = LinkSettings(
            host,
            port,
            client_id=f"edge-{self.name}",
            protocol="3.1.1",
            keepalive_s=plan.keepalive_s,
            username=plan.user,
            password_file=plan.password_file,
            window=plan.window,
            reconnect_max_s=5.0,
        )
        link = _TimedLink(
            settings,
            others,
            will=lambda: Message(f"{self._base}/state", self._state("offline", "link lost"), retain=True),
            subscriptions=[(f"{self._base}/ack", 1)],
            on_up=self._link_up,
            on_down=lambda why: self._sender.link_down(self._link.end_code),
            on_acked=self._puback,
            on_refused=lambda token, code: self._sender.refused(token, code) if token is not None else None,
            on_message=self._on_message,
            clock=self._clock,
            rng=self._rng,
        )
        link.sent_ns = {}
        return link

    def _link_up(self) -> None:
        self._link.sent_ns.clear()
        self._link.publish(f"{self._base}/state", self._state("online", ""), retain=True)
        self._sender.link_up()

    def _puback(self, token: int) -> None:
        sent_ns = self._link.sent_ns.pop(token, None)
        if sent_ns is not None:
            self._tally.puback_ms.append((self._clock() - sent_ns) / MS)
        self._sender.acked(token)

    def _on_message(self, message: Message) -> None:
        self._acks.append(message.payload)

    def _hear_ack(self, payload: bytes) -> None:
        self._sender.consumer_acked(payload)
        found = json.loads(payload)
        now, safe = time.monotonic_ns(), found["seq"] if found["epoch"] == self._witnessed_epoch() else 0
        while self._made and self._made[0][0] <= safe:
            self._tally.safe_ms.append((now - self._made.popleft()[1]) / MS)

    def _witnessed_epoch(self) -> str:
        return self._outbox.epoch if self._outbox else ""

    def _state(self, state: str, why: str) -> bytes:
        message = {
            "schema": STATE_SCHEMA,
            "box": self.name,
            "state": state,
            "why": why,
            "epoch": self._witnessed_epoch(),
            "time": iso_utc(self._wall.now()),
            "time_quality": self._wall.quality.value,
        }
        return json.dumps(message, separators=(",", ":")).encode()
