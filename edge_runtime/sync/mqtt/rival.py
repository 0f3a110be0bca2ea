"""Whether another client uses our name: a broker lets the last one in and puts the first one out, by turns for ever.

MQTT 5 has a reason code for it; others (mosquitto 2.0, all that speak 3.1.1) just close. Then it is a rival once
several connections in a row were closed from the far side soon after they were made. How many depends on what else may
have been the reason: a message under way, and above all one before which nothing was acknowledged. Such ones are
found after a few connections (`outbox/doubts.py`), and the count starts again then.

Once a rival is known, attempts are spaced by a wait of its own, which acknowledgements do not reset: both boxes get
turns to deliver, and nobody knocks three times a second. It is over when a connection has held for `HELD_FOR` such
waits: whoever else has the name and waits as we do would have come back. Pure: no clock, randomness is handed in.
"""

from __future__ import annotations

import random

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.mqtt.reasons import SESSION_TAKEN_OVER

SURE_AT = 3.0  # sum of the clues
IDLE, BUSY, STUCK = 1.0, 0.25, 0.15  # closed with nothing under way; while others were acknowledged; before any was
SOON_NS = 30 * SECOND
FIRST_S, MOST_S = 1.0, 300.0  # between two takeovers: a station with two boxes of one name works by turns of minutes
HELD_FOR = 2.0


class Rival:
    """Of one client id. Used by the thread of its link, over all its connections."""

    def __init__(self, client_id: str, rng: random.Random | None = None) -> None:
        self._client_id = client_id
        self._waits = Backoff(MOST_S, FIRST_S, rng)
        self._wait_s = 0.0
        self._clues = 0.0  # of connections that were closed, in a row
        self._is_said = False  # the broker gave it as its reason
        self.is_known = False
        self.takeovers = 0

    def ended(self, code: int | None, lived_ns: int, *, is_quiet: bool, was_useful: bool) -> None:
        """The far side ended a connection that was up, with this code, or none. is_quiet: nothing was under way;
        was_useful: others were acknowledged on it.
        """
        if code == SESSION_TAKEN_OVER:
            self.taken_over()
        elif code is None:
            self.closed(lived_ns, IDLE if is_quiet else BUSY if was_useful else STUCK)

    def taken_over(self) -> None:
        """The broker says so."""
        self.is_known = self._is_said = True
        self._count()

    def closed(self, lived_ns: int, clue: float) -> None:
        """The far side ended a connection that was up, without a reason. clue: IDLE, BUSY or STUCK."""
        if lived_ns > max(SOON_NS, self._clear_ns()):
            self._clues = 0.0
            return
        self._clues += clue
        if self.is_known or self._clues >= SURE_AT:
            self.is_known = True
            self._count()

    def explained(self) -> None:
        """Something else was why connections ended."""
        self._clues = 0.0

    def held(self, lived_ns: int) -> None:
        """A connection is up for so long."""
        if lived_ns > max(self._clear_ns(), 0 if self.is_known else SOON_NS):
            self._clues, self.is_known, self._is_said = 0.0, False, False
            self._waits.succeeded()
            self._wait_s = 0.0

    def wait_s(self) -> float:
        """Before the next attempt; 0 where no rival is known."""
        return self._wait_s if self.is_known else 0.0

    def trouble(self) -> str:
        """In words, or nothing."""
        if not self.is_known:
            return ""
        seen = "takes the connection over, says the broker"
        if not self._is_said:
            seen = f"takes the connection over, it seems: it was closed soon, again and again ({self.takeovers} times)"
        return (f"another client uses the client id {self._client_id} and {seen}: are there two boxes with the same "
                "site, line and name, or a copied card? Give each its own station.name")  # fmt: skip

    def _count(self) -> None:
        self.takeovers += 1
        self._wait_s = self._waits.next_s()

    def _clear_ns(self) -> int:
        return round(HELD_FOR * self._wait_s * SECOND)
