"""The controller on a simulated belt as a PLC on Modbus RTU, in both roles, and what it sees of the box's HOLD.

As server the firmware's core answers the box. As client a small PLC program stands between the two: it asks the core
and the box in turn and copies the blocks, as the program of a PLC without the core would fill them. The machine's setup
it reads from the box, once, before anything else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any

from firmware_bridge.controller import MODBUS_BAUD, MODBUS_UNIT, Controller, Transport
from firmware_bridge.modbus import MS, Line, Request, read_request, write_request
from firmware_bridge.modbus_client import Answered, RtuClient
from firmware_bridge.modbus_server import RtuServer
from firmware_bridge.registers import BOX, PLC, SETUP, BoxBlock, BoxStatus, MapError
from firmware_bridge.simulator import ControllerSim

POLL_NS = 10 * MS  # a short PLC scan


class PolledPlc(Controller):
    """The box polls. What it writes is overheard."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, transport=Transport.MODBUS, **kwargs)
        self._overheard = _BoxRegisters()
        self._ear = RtuServer(MODBUS_UNIT, Line(MODBUS_BAUD), self._overheard)

    @property
    def box(self) -> BoxBlock:
        """What the box has written."""
        return _block(self._overheard.words)

    def on_bytes(self, data: bytes, now_us: int) -> None:
        self._ear.feed(data, time.monotonic_ns())
        self._ear.take_output()
        super().on_bytes(data, now_us)


class _BoxRegisters:
    """What the box writes, wherever that is."""

    def __init__(self) -> None:
        self.words = [0] * BOX.size

    def read(self, address: int, count: int) -> Sequence[int]:
        return [0] * count

    def write(self, address: int, values: Sequence[int]) -> None:
        for at, value in enumerate(values, address):
            if at in BOX:
                self.words[at - BOX.base] = value


def _block(words: Sequence[int]) -> BoxBlock:
    """An empty one until a whole one is there."""
    try:
        return BoxBlock.unpack(words)
    except MapError:
        return BoxBlock()


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
        self._box_words: Sequence[int] = (0,) * BOX.size

    @property
    def box(self) -> BoxBlock:
        """What was read from the box."""
        return _block(self._box_words)

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
        if self._step is Step.BOX_FROM_BOX:
            self._box_words = values
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


class PlcOnBelt(ControllerSim):
    """`ControllerSim` on Modbus. role and unit are those of the station file: what the box is."""

    def __init__(self, *args: Any, role: str, unit: int, **kwargs: Any) -> None:
        self._role, self._unit = role, unit
        super().__init__(*args, transport=Transport.MODBUS, **kwargs)

    @property
    def box(self) -> BoxBlock:
        """What the PLC has of the box."""
        controller = self.controller
        return controller.box if isinstance(controller, PolledPlc | PollingPlc) else BoxBlock()

    @property
    def is_holding(self) -> bool:
        """Whether the box asks for a hold of the feed."""
        return bool(self.box.status & BoxStatus.HOLD)

    def _power_on(self, boot_id: int | None, *, restart: bool = False) -> Controller:
        if boot_id is None:  # as in ControllerSim: every start has another one
            boot_id = int.from_bytes(os.urandom(2), "little") or 1
        saved = self.controller.config if restart else None
        start: dict[str, Any] = {"encoder": self._told(self._count), "saved": saved, "observer": self._observe}
        now_us = self._us(self._last_ns)
        if self._role == "server":
            return PollingPlc(boot_id, now_us, unit=self._unit, **start)
        return PolledPlc(boot_id, now_us, **start)
