"""What a broker is asked for with the next connection: a version of MQTT, and retained messages or none. Pure.

Some brokers refuse a retained will (Retain Available is 0), others do not speak MQTT 5. Who speaks 5 says so in its
CONNACK, and what it does not do is left out at once. Who speaks 3.1.1 has no words for it and hangs up before it
answers: then what may be the reason is left out by turns. Retained messages are asked for anew after each connection
that was up, so that a network that failed once does not take them away for good.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_runtime.sync.mqtt.reasons import RETAIN_NOT_SUPPORTED, UNSUPPORTED_VERSION


class Manner(NamedTuple):
    version: str  # 5 or 3.1.1
    has_retain: bool = True


_ORDER = {
    "auto": (Manner("5"), Manner("3.1.1"), Manner("3.1.1", has_retain=False)),
    "5": (Manner("5"), Manner("5"), Manner("5", has_retain=False)),
    "3.1.1": (Manner("3.1.1"), Manner("3.1.1"), Manner("3.1.1", has_retain=False)),
}


class Manners:
    """Of one link. protocol: as the station file has it."""

    def __init__(self, protocol: str) -> None:
        self._is_auto = protocol == "auto"
        self._order = _ORDER[protocol]
        self._at = 0
        self.now = self._order[0]

    def hung_up(self) -> None:
        """The broker closed before it answered: try the next one."""
        self._at = (self._at + 1) % len(self._order)
        self.now = self._order[self._at]

    def was_refused(self, code: int | None) -> bool:
        """The CONNACK said so. True where another manner is worth an attempt at once."""
        if code == UNSUPPORTED_VERSION and self._is_auto and self.now.version == "5":
            self.now, self._at = self.now._replace(version="3.1.1"), 1
            return True
        if code == RETAIN_NOT_SUPPORTED and self.now.has_retain:
            self.now = self.now._replace(has_retain=False)
            return True
        return False

    def was_up(self) -> None:
        """A connection that was up has ended: the same version again, and everything of it."""
        self.now = Manner(self.now.version)
        self._at = next(at for at, manner in enumerate(self._order) if manner == self.now)
