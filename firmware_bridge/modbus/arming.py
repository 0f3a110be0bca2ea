"""Arming with a PLC: the box shows ARMED, the PLC says ENABLE, and either may take it back. Levels, no edges.

After a trip ARMED is shown at 0 until TRIPPED is gone; a lost encoder is not taken back so, see `_is_taking_trip_back`.
"""

from __future__ import annotations

from firmware_bridge.modbus.registers import BoxStatus, PlcControl
from firmware_bridge.reject.far_side import FarSide, Phase
from firmware_bridge.reject.link_events import Tripped


class Arming:
    """See the module. `control` is what the PLC said last."""

    def __init__(self, far: FarSide) -> None:
        self.control = PlcControl(0)
        self.wants_hold = False
        self._far = far
        self._wants_armed = False
        self._was_up = False  # armed, and no trip told since

    def set_armed(self, wanted: bool, now_ns: int) -> None:
        self._wants_armed = wanted
        self._was_up = self._was_up and wanted
        if self._far.is_talking and self._far.phase is not Phase.CONFIG:
            self.see(now_ns)

    def status(self, is_busy: bool) -> BoxStatus:
        """What the box shows of itself."""
        far, status = self._far, BoxStatus(0)
        if far.phase is Phase.REFUSED:
            return BoxStatus.FAULT
        if far.is_talking:
            status |= BoxStatus.READY
        if is_busy:
            status |= BoxStatus.BUSY
        if self.wants_hold:
            status |= BoxStatus.HOLD
        if far.phase in (Phase.ARM, Phase.UP) and self._wants_armed and not self._is_taking_trip_back:
            status |= BoxStatus.ARMED
        return status

    def see(self, now_ns: int) -> None:
        """Go by what the PLC says and what is wanted."""
        far = self._far
        is_enabled = PlcControl.ENABLE in self.control and PlcControl.TRIPPED not in self.control
        if self._was_up and self._wants_armed and not is_enabled:  # also while we were away
            far.events.append(Tripped("disarmed", now_ns))
            self.fell()
        if is_enabled and self._wants_armed:
            self._now_up(now_ns)
        elif is_enabled or self._wants_armed:
            far.phase = Phase.ARM
            far.detail = "waiting for the PLC's ENABLE" if self._wants_armed else "disarming"
            if self._wants_armed:
                far.blocked(far.flags)
        else:
            far.phase, far.detail = Phase.READY, "ready, not armed"

    def fell(self) -> None:
        """The PLC let itself fall into the safe state."""
        self._far.counts["trips"] += self._was_up
        self._was_up = False
        if self._far.phase is Phase.UP:
            self._far.phase, self._far.detail = Phase.ARM, "the PLC let itself fall into the safe state"

    def restarted(self) -> None:
        """The PLC began anew, which says enough: no trip is told besides."""
        self._was_up = False

    @property
    def _is_taking_trip_back(self) -> bool:
        """A lost encoder is not taken back by itself: somebody has to stop and start the line."""
        return PlcControl.TRIPPED in self.control and PlcControl.ENCODER_LOST not in self.control

    def _now_up(self, now_ns: int) -> None:
        if self._far.phase is Phase.UP:
            return
        self._was_up = True
        self._far.came_up(now_ns)
