"""The way commands come in and answers go out: a connection of its own, so that neither waits for a backlog of records.

.../cmd         to the box, QoS 1. The session is clean: a command that finds no box is gone, it is for now
.../cmd/reply   from the box, QoS 1, sent again until it is acknowledged
.../cmd/nonce   from the box, retained, where the station asks for one-time words: the next one
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.flow.components import Health, State
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.commands.allowed import Proof
from edge_runtime.sync.commands.desk import Answer, CommandDesk
from edge_runtime.sync.commands.judge import Commands
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.reasons import in_words
from edge_runtime.sync.mqtt.settings import LinkSettings, Message
from edge_runtime.sync.records.topics import Topics

log = logging.getLogger(__name__)

REPLY_SCHEMA = "edge-runtime/reply/1"
NONCE_SCHEMA = "edge-runtime/nonce/1"
TURN_S = 1.0
STOP_WAIT_S = 4.0
MOST_REPLIES = 64  # that wait for a link; the oldest go first, the audit has them
MOST_TRIES = 3  # of one reply: a broker that refuses it would be asked for ever
WINDOW = 16


class _Reply(NamedTuple):
    payload: bytes
    tries: int = 0


def nonce_topic(topics: Topics) -> str:
    return f"{topics.command}/nonce"


class CommandChannel:
    """A component. settings: of the records' link; the client id gets a suffix. See CommandDesk for open_commands."""

    name = "commands"

    def __init__(
        self,
        settings: LinkSettings,
        topics: Topics,
        box: str,
        proof: Proof,
        open_commands: Callable[[], Commands],
        *,
        clock: Clock = monotonic_ns,
        rng: random.Random | None = None,
    ) -> None:
        self._topics, self._box, self._proof, self._clock = topics, box, proof, clock
        self.desk = CommandDesk(open_commands, self._answered)
        self.link = MqttLink(
            replace(settings, client_id=f"{settings.client_id}-cmd", window=min(WINDOW, settings.window)),
            subscriptions=[(topics.command, 1)],
            on_up=self._link_up,
            on_down=self._link_down,
            on_acked=lambda token: self._sent.pop(token, None),
            on_refused=self._refused,
            on_message=self._on_message,
            clock=clock,
            rng=rng,
        )
        self._replies: deque[_Reply] = deque(maxlen=MOST_REPLIES)
        self._sent: dict[int, _Reply] = {}
        self._tokens = count()
        self._nonce = ""
        self._is_nonce_told = True
        self._thread: threading.Thread | None = None
        self._must_stop = threading.Event()
        self._backoff = Backoff(10.0)
        self._progress_ns = clock()

    def start(self) -> None:
        if self._thread:
            return
        self.desk.start()
        self._must_stop.clear()
        self._thread = threading.Thread(target=self._run, name="command-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Safe to call twice. Ends within 5 s."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.desk.stop()
        self._must_stop.set()
        self.link.wake()
        thread.join(STOP_WAIT_S)

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        for health in (self.desk.health(), self.link.health()):
            if health.state is not State.OK:
                return Health(health.state, health.detail, self._progress_ns)
        return Health(State.OK, f"{self._proof.value}, {self.desk.health().detail}", self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {"proof": self._proof.value, **self.desk.report(), "link": self.link.report()}

    # -- the link's thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._must_stop.is_set():
            self._progress_ns = self._clock()
            try:
                self._publish()
                self.link.turn(TURN_S)
                self._backoff.succeeded()
            except Exception:
                log.exception("command.link failed")
                self._must_stop.wait(self._backoff.next_s())
        self._publish()
        self.link.close()

    def _publish(self) -> None:
        if not self._is_nonce_told and self._proof is Proof.NONCE and self.link.room:
            self._is_nonce_told = True  # before it is read: the desk may change it at any moment
            word = json.dumps({"schema": NONCE_SCHEMA, "box": self._box, "nonce": self._nonce})
            self.link.publish(nonce_topic(self._topics), word.encode(), retain=True)
        while self._replies and self.link.room:
            reply, token = self._replies.popleft(), next(self._tokens)
            self._sent[token] = reply
            self.link.publish(self._topics.reply, reply.payload, token=token)

    def _link_up(self) -> None:
        self._is_nonce_told = not self._nonce

    def _link_down(self, why: str) -> None:
        again = [_Reply(reply.payload, reply.tries + 1) for reply in self._sent.values()]
        self._sent.clear()
        self._replies.extendleft(reply for reply in reversed(again) if reply.tries < MOST_TRIES)

    def _refused(self, token: int | None, code: int) -> None:
        """The broker takes no answers; the audit has them."""
        if token is not None:
            self._sent.pop(token, None)
        log.warning("command.reply_refused topic=%s %s", self._topics.reply, in_words(code))

    def _on_message(self, message: Message) -> None:
        if message.topic == self._topics.command:
            self.desk.receive(message.payload, is_retained=message.retain)

    def _answered(self, answer: Answer | None, nonce: str) -> None:
        """On the desk's thread."""
        if nonce != self._nonce:
            self._nonce, self._is_nonce_told = nonce, False
        if answer is not None:
            reply = {"schema": REPLY_SCHEMA, "box": self._box, **answer}
            self._replies.append(_Reply(json.dumps(reply, separators=(",", ":"), default=str).encode()))
        self.link.wake()
