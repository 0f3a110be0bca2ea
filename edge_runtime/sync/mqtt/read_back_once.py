"""One proof that a broker keeps records, on a connection of its own: to look at a box where no sync runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.read_back import SHOW_WAIT_NS
from edge_runtime.sync.mqtt.reasons import in_words
from edge_runtime.sync.mqtt.settings import LinkSettings, Message

SUFFIX = "-doctor"  # of the client id: a running sync must not be put out
TURN_S = 0.1
REACH_S = 3.0  # to be connected and allowed to listen
ANSWER_S = 3.0  # for the broker to acknowledge


@dataclass(frozen=True, slots=True)
class Proof:
    """is_proven: None where it could not be tried, such as without a network."""

    is_proven: bool | None
    protocol: str
    why: str = ""


class _Try:
    def __init__(self, settings: LinkSettings, topic: str, payload: bytes) -> None:
        self._topic, self._payload = topic, payload
        self._acked_s: float | None = None
        self._is_back = False
        self._why = ""
        self._has_asked = False
        self._link = MqttLink(
            replace(settings, client_id=settings.client_id + SUFFIX),
            on_up=self._ask,
            on_acked=self._acked,
            on_refused=self._refused,
            on_listening=self._show,
            on_message=self._take,
        )

    def run(self) -> Proof:
        limit = time.monotonic() + REACH_S + ANSWER_S
        try:
            while not (self._is_back or self._why) and time.monotonic() < self._until(limit):
                self._link.turn(TURN_S)
            return self._outcome()
        finally:
            self._link.close(timeout_s=0.5)

    def _until(self, limit: float) -> float:
        return limit if self._acked_s is None else self._acked_s + SHOW_WAIT_NS / SECOND

    def _outcome(self) -> Proof:
        protocol = self._link.protocol
        if self._is_back or self._why:
            return Proof(self._is_back, protocol, self._why)
        if self._acked_s is not None:
            return Proof(False, protocol, "what this box publishes there does not come back")
        if self._has_asked:
            return Proof(False, protocol, "it does not answer when this box asks to read its own records")
        return Proof(None, protocol, self._link.trouble or "no answer in time")

    def _ask(self) -> None:
        self._has_asked = True
        self._link.listen(self._topic)

    def _show(self, is_granted: bool) -> None:
        if not is_granted:
            self._why = "it does not let this box read its own records"
        elif not self._link.publish(self._topic, self._payload, token=1):
            self._why = f"a record of {len(self._payload)} bytes is larger than it takes"

    def _acked(self, token: int) -> None:
        self._acked_s = time.monotonic()

    def _refused(self, token: int | None, code: int) -> None:
        self._why = f"it refuses the record: {in_words(code)}"

    def _take(self, message: Message) -> None:
        self._is_back = self._is_back or message.payload == self._payload


def read_back_once(settings: LinkSettings, topic: str, payload: bytes) -> Proof:
    """Publish a record that waits anyway, and see it come back. A consumer that has it already ignores the repeat."""
    return _Try(settings, topic, payload).run()
