"""The controller on a simulated belt as a PLC on Modbus RTU that polls the box.

(One that the box polls is the firmware's core by itself: `ControllerSim` with `Transport.MODBUS`.) Here a small PLC
program stands between core and box: it asks both in turn and copies the blocks, as the program of a PLC without the
core would fill them. The machine's setup it reads from the box, once, before anything else.
"""

from __future__ import annotations

import os
import time
from enum import Enum
from typing import Any

from firmware_bridge.modbus.client import Answered, RtuClient
from firmware_bridge.modbus.registers import BOX, PLC, SETUP
from firmware_bridge.modbus.rtu import MS, Line, Request, read_request, write_request
from firmware_bridge.reject.controller import MODBUS_BAUD, MODBUS_UNIT, Controller, Transport
from firmware_bridge.sim.controller import ControllerSim

POLL_NS = 10 * MS  # a short PLC scan


class Step(Enum):
    """The scan of the PLC program; SETUP_* until the machine's setup is known."""

    SETUP_FROM_BOX = "setup from box"
    SETUP_TO_CORE = "setup to core"
    PLC_FROM_CORE = "PLC block from core"
    PLC_TO_BOX = "PLC block to box"
    BOX_FROM_BOX = "box block from box"
    BOX_TO_CORE = "box block to core"


_NEXT = {
    Step.SETUP_FROM_BOX: Step.SETUP_TO_CORE,
    Step.SETUP_TO_CORE: Step.PLC_FROM_CORE,
    Step.PLC_FROM_CORE: Step.PLC_TO_BOX,
    Step.PLC_TO_BOX: Step.BOX_FROM_BOX,
    Step.BOX_FROM_BOX: Step.BOX_TO_CORE,
    Step.BOX_TO_CORE: Step.PLC_FROM_CORE,
}
_AT_CORE = (Step.SETUP_TO_CORE, Step.PLC_FROM_CORE, Step.BOX_TO_CORE)


class PollingPlc(Controller):
    """The PLC polls the box, which is unit `unit`."""

    def __init__(self, *args: Any, unit: int, **kwargs: Any) -> None:
        super().__init__(*args, transport=Transport.MODBUS, **kwargs)
        self._unit = unit
        self._to_core, self._to_box = RtuClient(Line(MODBUS_BAUD)), RtuClient(Line(MODBUS_BAUD))
        self._step = Step.SETUP_FROM_BOX
        self._words: tuple[int, ...] = ()
        self._scan_ns = 0

    def on_bytes(self, data: bytes, now_us: int) -> None:
        self._to_box.feed(data, time.monotonic_ns())
        self._scan(now_us)

    def on_time(self, now_us: int) -> None:
        super().on_time(now_us)
        self._scan(now_us)

    def take_frames(self) -> list[bytes]:
        out = self._to_box.take_output()
        return [out] if out else []

    def _scan(self, now_us: int) -> None:
        now_ns = time.monotonic_ns()
        reply = b"".join(super().take_frames())
        if reply:
            self._to_core.feed(reply, now_ns)
        client = self._to_core if self._step in _AT_CORE else self._to_box
        client.tick(now_ns)
        answer = client.take_answer()
        if isinstance(answer, Answered):
            self._go_on(answer.values)
        client = self._to_core if self._step in _AT_CORE else self._to_box
        if client.is_free(now_ns) and (self._step is not Step.PLC_FROM_CORE or now_ns >= self._scan_ns):
            if self._step is Step.PLC_FROM_CORE:
                self._scan_ns = now_ns + POLL_NS
            client.ask(self._request(), now_ns)
        asked = self._to_core.take_output()
        if asked:
            super().on_bytes(asked, now_us)

    def _go_on(self, values: tuple[int, ...]) -> None:
        """A step is done; one that failed is made again."""
        if values:
            self._words = values
        self._step = _NEXT[self._step]

    def _request(self) -> Request:
        match self._step:
            case Step.SETUP_FROM_BOX:
                return read_request(self._unit, SETUP.base, SETUP.size)
            case Step.SETUP_TO_CORE:
                return write_request(MODBUS_UNIT, SETUP.base, self._words)
            case Step.PLC_FROM_CORE:
                return read_request(MODBUS_UNIT, PLC.base, PLC.size)
            case Step.PLC_TO_BOX:
                return write_request(self._unit, PLC.base, self._words)
            case Step.BOX_FROM_BOX:
                return read_request(self._unit, BOX.base, BOX.size)
            case Step.BOX_TO_CORE:
                return write_request(MODBUS_UNIT, BOX.base, self._words)


class PollingSim(ControllerSim):
    """`ControllerSim` with a PLC that polls the box, which is unit `unit`."""

    def __init__(self, *args: Any, unit: int, **kwargs: Any) -> None:
        self._unit = unit
        super().__init__(*args, transport=Transport.MODBUS, **kwargs)

    def _power_on(self, boot_id: int | None, *, restart: bool = False) -> Controller:
        if boot_id is None:  # as in ControllerSim: every start has another one
            boot_id = int.from_bytes(os.urandom(2), "little") or 1
        return PollingPlc(
            boot_id,
            self._us(self._last_ns),
            unit=self._unit,
            encoder=self._told(self._count),
            saved=self.controller.config if restart else None,
            observer=self._observe,
        )
