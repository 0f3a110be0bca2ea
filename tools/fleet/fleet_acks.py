"""Tells boxes on `.../ack` what is safe. A thread of its own: MQTT has nothing to do with the database's pace.

Retained, so that a box that was away finds it, and QoS 0: an acknowledgement is cumulative, so the next one repairs a
lost one, and at the end of all the box asks by sending again. The latest of a box replaces what was not said yet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from fleet_link import Address, RovingLink
from fleet_store import Ack

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.mqtt.settings import LinkSettings

log = logging.getLogger(__name__)

TURN_S = 0.05
SAID_MOST = 500  # in one turn, so that the socket is read in between
GOODBYE_S = 1.0


class AckSpeaker:
    """start, stop; `say` from any thread, never blocks."""

    def __init__(self, settings: LinkSettings, addresses: Sequence[Address], every_s: float) -> None:
        self._link = RovingLink(settings, addresses, on_up=self._up)
        self._every_ns = round(every_s * SECOND)
        self._lock = threading.Lock()
        self._latest: dict[str, bytes] = {}  # topic -> what was said or is to be said
        self._due: dict[str, None] = {}  # topics, in order
        self._said_ns: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="acks", daemon=True)
        self.said = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say what is due, and goodbye. Ends within two seconds."""
        self._stopping.set()
        self._link.wake()
        if self._thread.is_alive():
            self._thread.join(2 * GOODBYE_S)

    def say(self, acks: Iterable[Ack]) -> None:
        with self._lock:
            for ack in acks:
                topic = ack.place.topic("ack")
                self._latest[topic] = ack.payload()
                self._due[topic] = None

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    def _up(self) -> None:
        """What was said over the old link may not have arrived."""
        with self._lock:
            self._due |= dict.fromkeys(self._latest)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._link.rove()
                self._link.turn(TURN_S)
                self._speak(pause_ns=self._every_ns)
            except Exception:
                log.exception("acks.fault")
                self._stopping.wait(1.0)
        self._speak(pause_ns=0, most=len(self._due))
        self._link.close(timeout_s=GOODBYE_S)

    def _speak(self, pause_ns: int, most: int = SAID_MOST) -> None:
        """Each box at most once in `pause_ns`."""
        if not self._link.is_up:
            return
        now = self._link.now_ns()
        with self._lock:
            ready = [topic for topic in self._due if now - self._said_ns.get(topic, 0) >= pause_ns][:most]
            messages = [(topic, self._latest[topic]) for topic in ready]
            for topic in ready:
                del self._due[topic]
        for topic, payload in messages:
            if self._link.publish(topic, payload, qos=0, retain=True):
                self._said_ns[topic] = now
                self.said += 1
