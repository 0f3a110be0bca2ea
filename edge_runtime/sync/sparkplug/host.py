"""Is the primary host there? Reads STATE messages the way Sparkplug 3.0 asks an edge node to.

A STATE payload is JSON: `{"online": true, "timestamp": 1700000000000}`. A message whose timestamp is older than the
last one of the same server is a straggler (the will of an earlier session) and means nothing.

A host of Sparkplug 2.2 says `ONLINE` or `OFFLINE` on `STATE/HOST` instead. A node of 3.0 may not count on it, so that
it is only listened to: whoever waits for such a host in vain is told why.
"""

from __future__ import annotations

import json
from enum import StrEnum

_MOST_WORD = 40  # of a message that is one word


class HostState(StrEnum):
    UNKNOWN = "unknown"
    ONLINE = "online"
    OFFLINE = "offline"


class HostWatch:
    """What each server last said of the one host this node waits for. Timestamps outlive the connection."""

    def __init__(self, host_id: str) -> None:
        self.topic = f"spBv1.0/STATE/{host_id}"
        self.old_topic = f"STATE/{host_id}"
        self.old_word = ""  # what a host of Sparkplug 2.2 said last
        self.ignored = 0  # malformed or out of date
        self._newest_ms: dict[int, int] = {}

    def read_old(self, payload: bytes) -> None:
        """A message on the topic of Sparkplug 2.2."""
        self.old_word = payload[:_MOST_WORD].decode("utf-8", "replace").strip() or "nothing"

    def old_host(self) -> str:
        """That this host speaks 2.2, in words, or nothing where it was heard in the form of 3.0 too."""
        if not self.old_word or self._newest_ms:
            return ""
        return (f"the host speaks Sparkplug 2.2 ({self.old_topic} is {self.old_word!r}, nothing on {self.topic}): "
                "set it to Sparkplug 3.0, or empty sync.sparkplug.primary_host")  # fmt: skip

    def read(self, server: int, payload: bytes) -> HostState:
        """ONLINE or OFFLINE, or UNKNOWN for a message that says nothing new."""
        try:
            said = json.loads(payload)
            online, stamp_ms = said["online"], said["timestamp"]
        except (ValueError, RecursionError, TypeError, KeyError):
            online, stamp_ms = None, None
        is_sound = isinstance(online, bool) and isinstance(stamp_ms, int) and not isinstance(stamp_ms, bool)
        if not is_sound or stamp_ms < self._newest_ms.get(server, 0):
            self.ignored += 1
            return HostState.UNKNOWN
        self._newest_ms[server] = stamp_ms
        return HostState.ONLINE if online else HostState.OFFLINE
