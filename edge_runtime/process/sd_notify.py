"""Words to systemd over its notification socket (sd_notify(3)): ready, alive, status, stopping.

Twenty lines over a datagram socket; the protocol is stable and a library would be a dependency for them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Silent when not run by systemd. `watchdog_s` is the time within which it wants to hear from us, or None."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
        is_ours = not pid or pid == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() and is_ours else None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            try:
                sock.sendto(message.encode(), address)
            except OSError:
                pass  # systemd itself is restarting; the next word comes in a second
