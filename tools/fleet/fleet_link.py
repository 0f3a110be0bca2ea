"""A link that knows several brokers of one cluster, and that many of can be waited for at once.

A box has one address, a name that resolves to all nodes; on loopback that is a list of ports, tried in turn.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.settings import LinkSettings

ROVE_AFTER_NS = 1 * SECOND  # without a link, until the next address has its turn

Address = tuple[str, int]


class RovingLink(MqttLink):
    """Call `rove` before `turn`."""

    def __init__(self, settings: LinkSettings, addresses: Sequence[Address], **options: Any) -> None:
        self._addresses = [(settings.host, settings.port), *addresses]
        self._at = 0
        self._tried_ns = 0
        super().__init__(settings, **options)

    def rove(self) -> None:
        """Another address, when this one has had its chance."""
        now = self._clock()
        if self.is_up or not self._tried_ns:
            self._tried_ns = now
        elif now - self._tried_ns >= ROVE_AFTER_NS:
            self._tried_ns = now
            self._at = (self._at + 1) % len(self._addresses)
            host, port = self._addresses[self._at]
            self.settings = replace(self.settings, host=host, port=port)

    def now_ns(self) -> int:
        return self._clock()

    @property
    def socket(self) -> socket.socket | None:
        """For whoever polls many links; None without a connection."""
        return self._connection.socket if self._connection else None

    def cut(self) -> None:
        """Lose the connection the way a pulled cable does, minus the wait: no DISCONNECT."""
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):  # it is lost already
                sock.shutdown(socket.SHUT_RDWR)
