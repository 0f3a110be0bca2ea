"""Why does nobody answer? What the bytes on a port tell when no good frame is among them. No I/O, no clock."""

from __future__ import annotations

SILENT_NS = 2_000_000_000  # a controller that restarts answers within one second
DAMAGED_BYTES = 8  # less is what a plug makes when it goes in

SILENCE = "check its power and cable, and controller.baud and controller.protocol"
DAMAGE = "bytes are heard but no good frame, frames are damaged: check controller.baud and controller.protocol"


class Hearing:
    """Follows one port from its opening on."""

    def __init__(self) -> None:
        self._since_ns: int | None = None  # of the last good frame, or of the opening
        self._good = 0
        self._bytes = 0  # since then

    def opened(self, good_frames: int, now_ns: int) -> None:
        self._since_ns, self._good, self._bytes = now_ns, good_frames, 0

    def heard(self, count: int, good_frames: int, now_ns: int) -> None:
        """`count` bytes came; the link has seen `good_frames` in all."""
        if good_frames != self._good:
            self._since_ns, self._good, self._bytes = now_ns, good_frames, 0
        else:
            self._bytes += count

    def hint(self, now_ns: int) -> str:
        """What to check, once it has been long enough; else empty."""
        if self._since_ns is None or now_ns - self._since_ns < SILENT_NS:
            return ""
        return DAMAGE if self._bytes >= DAMAGED_BYTES else SILENCE
