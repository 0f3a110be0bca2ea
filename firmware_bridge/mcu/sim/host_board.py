"""The host build of the controller's core on a simulated board, stepped through every encoder count."""

from __future__ import annotations

import os
from collections import deque

from firmware_bridge.mcu.sim.board import BAUD, QUARTERS, Beam, Input, Note, What
from firmware_bridge.reject.controller import Controller
from firmware_bridge.reject.messages import Config
from firmware_bridge.wrap import U32

TICK_US = 1000.0
BYTE_US = 10e6 / BAUD
TX_ROOM = 192  # bytes of the transmit buffer; what finds no room is not sent
MAX_WAITING = 8192  # bytes for the UART
FORGET_QUARTERS = 4096  # no belt here turns back further


class HostBoard:
    """See `board.Board`. `encoder` and `time_us`: where the controller's own counters stand at the start."""

    def __init__(self, *, encoder: int = 0, time_us: int = 0, boot_id: int | None = None) -> None:
        self._zero, self._time_zero = encoder, time_us
        self._boot_id = boot_id
        self.quarter = 0
        self.now_us = 0.0
        self._tick_us = TICK_US
        self._quarters_per_s = 0
        self._next_quarter_us = 0.0
        self._edge_us = 0.0
        self._shadows: dict[Beam, deque[tuple[int, int]]] = {beam: deque() for beam in Beam}
        self._dark = dict.fromkeys(Beam, False)
        self._levels = dict.fromkeys(Input, True)
        self._notes: list[Note] = []
        self._rx: deque[int] = deque()
        self._tx: deque[bytes] = deque()
        self._out = bytearray()
        self._rx_free_us = self._tx_free_us = 0.0
        self._heard = 0
        self._gate = self._healthy = False
        self.controller = self._power_on(None)

    def speed(self, quarters_per_s: int) -> None:
        if not self._quarters_per_s and quarters_per_s:
            self._next_quarter_us = self.now_us + 1e6 / abs(quarters_per_s)
        self._quarters_per_s = quarters_per_s

    def shadow(self, beam: Beam, first: int, end: int) -> None:
        shadows = self._shadows[beam]
        shadows.append((first, end))
        while shadows[0][1] < self.quarter - FORGET_QUARTERS:
            shadows.popleft()

    def level(self, pin: Input, is_good: bool) -> None:
        self._levels[pin] = is_good

    def run(self, us: float) -> None:
        until_us = self.now_us + us
        while True:
            at_us = min(self._tick_us, self._next_quarter_us if self._quarters_per_s else self._tick_us)
            if at_us > until_us:
                break
            self.now_us = at_us
            if at_us == self._tick_us:
                self._tick_us += TICK_US
                self._tick()
            else:
                self._next_quarter_us += 1e6 / abs(self._quarters_per_s)
                self._move()
            self._look_at_outputs()
        self.now_us = until_us

    def reset(self) -> None:
        saved = self.controller.config
        self._tx.clear()
        self.controller = self._power_on(saved)
        self._look_at_outputs()

    def put(self, data: bytes) -> int:
        taken = data[: MAX_WAITING - len(self._rx)]
        if not self._rx:
            self._rx_free_us = max(self._rx_free_us, self.now_us)
        self._rx.extend(taken)
        return len(taken)

    def take(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def notes(self) -> list[Note]:
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        pass

    def _power_on(self, saved: Config | None) -> Controller:
        boot_id = self._boot_id
        if boot_id is None:
            boot_id = int.from_bytes(os.urandom(2), "little") or 1
        else:
            self._boot_id = boot_id + 1
        return Controller(boot_id, self._controller_us, encoder=self._encoder, saved=saved)

    @property
    def _encoder(self) -> int:
        return (self._zero + self.quarter // QUARTERS) & U32

    @property
    def _controller_us(self) -> int:
        return (self._time_zero + int(self.now_us)) & U32

    def _note(self, what: What, level: bool) -> None:
        self._notes.append(Note(what, level, self.quarter, self.now_us, self.now_us - self._edge_us, self._heard))

    def _tick(self) -> None:
        """A millisecond of the firmware's main loop: bytes as fast as the UART brings them, then time."""
        while self._rx and self._rx_free_us + BYTE_US <= self.now_us:
            self._rx_free_us += BYTE_US
            byte = self._rx.popleft()
            self._heard += 1
            if not byte:
                self._note(What.HEARD, False)
            self.controller.on_bytes(bytes((byte,)), self._controller_us)
        levels = self._levels
        self.controller.on_inputs(self._controller_us, bin_ok=levels[Input.BIN], air_ok=levels[Input.AIR])
        self.controller.on_time(self._controller_us)
        if not self._tx:
            self._tx_free_us = max(self._tx_free_us, self.now_us - TICK_US)
        for frame in self.controller.take_frames():
            if sum(map(len, self._tx)) + len(frame) <= TX_ROOM:
                self._tx.append(frame)
        while self._tx and self._tx_free_us + len(self._tx[0]) * BYTE_US <= self.now_us:
            self._tx_free_us += len(self._tx[0]) * BYTE_US
            self._out += self._tx.popleft()

    def _move(self) -> None:
        before = self.quarter // QUARTERS
        self.quarter += 1 if self._quarters_per_s > 0 else -1
        if self.quarter // QUARTERS != before:
            if self._quarters_per_s > 0:
                self._edge_us = self.now_us
            self.controller.on_encoder(self._encoder, self._controller_us)
        for beam, shadows in self._shadows.items():
            is_dark = any(first <= self.quarter < end for first, end in shadows)
            if is_dark != self._dark[beam]:
                self._dark[beam] = is_dark
                self._on_beam(beam, is_dark)

    def _on_beam(self, beam: Beam, is_dark: bool) -> None:
        self._note(What.EYE if beam is Beam.EYE else What.CONFIRM, is_dark)
        if not is_dark:
            return
        if beam is Beam.EYE:
            self.controller.on_eye(self._encoder, self._controller_us)
        else:
            self.controller.on_confirm(self._encoder, self._controller_us)

    def _look_at_outputs(self) -> None:
        for edge in self.controller.edges:
            if edge.is_on != self._gate:
                self._gate = edge.is_on
                self._note(What.GATE, edge.is_on)
        self.controller.edges.clear()
        if not self.controller.gate and self._gate:  # a reset lets go without an edge
            self._gate = False
            self._note(What.GATE, False)
        if self.controller.is_healthy != self._healthy:
            self._healthy = self.controller.is_healthy
            self._note(What.HEALTHY, self._healthy)
