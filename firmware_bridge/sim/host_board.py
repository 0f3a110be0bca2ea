"""The host build of the controller's core on a simulated board: from one place at which something happens to the next.

Every count at which the core or a beam does something is gone to by itself, in order, as interrupts do it, so that a
pulse is at its exact count however long a run takes; what lies between is skipped.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from firmware_bridge.reject.controller import Controller
from firmware_bridge.reject.messages import EventMsg
from firmware_bridge.sim.board import QUARTERS, Beam, Input, Note, What
from firmware_bridge.sim.travel import Travel
from firmware_bridge.sim.uart import BYTE_US, Uart
from firmware_bridge.wrap import U32, since32

TICK_US = 1000.0
NEVER = 2**62  # a place
FORGET_QUARTERS = 4096  # no belt here turns back further


class HostBoard:
    """See `board.Board`. `encoder` and `time_us`: where the controller's own counters stand at the start.

    make: the controller, or a PLC, from what `Controller` takes. observer: told every event of it. byte_us: of the
    UART; with `AT_ONCE_US` what is put is heard when time passes next, and answered within it.
    """

    def __init__(
        self,
        *,
        encoder: int = 0,
        time_us: int = 0,
        boot_id: int | None = None,
        make: Callable[..., Controller] = Controller,
        observer: Callable[[EventMsg], None] | None = None,
        byte_us: float = BYTE_US,
    ) -> None:
        self._zero, self._time_zero = encoder, time_us
        self._boot_id = boot_id
        self._make, self._observer = make, observer
        self.now_us = 0.0
        self._travel = Travel()
        self._tick_us = TICK_US
        self._edge_us = 0.0
        self._is_encoder_lost = False
        self._untold = 0  # counts that a lost encoder did not tell
        self._told = 0
        self._shadows: dict[Beam, deque[tuple[int, int]]] = {beam: deque() for beam in Beam}
        self._dark = dict.fromkeys(Beam, False)
        self._next_edge = NEVER
        self._levels = dict.fromkeys(Input, True)
        self._notes: list[Note] = []
        self._uart = Uart(byte_us)
        self._heard = 0
        self._gate = self._healthy = False
        self.controller = self._power_on()

    @property
    def quarter(self) -> int:
        return self._travel.quarter

    def speed(self, quarters_per_s: float) -> None:
        self._travel.speed(quarters_per_s, self.now_us)

    def shadow(self, beam: Beam, first: int, end: int) -> None:
        shadows = self._shadows[beam]
        shadows.append((first, end))
        while shadows[0][1] < self.quarter - FORGET_QUARTERS:
            shadows.popleft()
        self._find_edge()

    def level(self, pin: Input, is_good: bool) -> None:
        self._levels[pin] = is_good

    def lose_encoder(self, is_lost: bool) -> None:
        self._is_encoder_lost = is_lost

    def run(self, us: float) -> None:
        until_us = self.now_us + us
        if not self._uart.byte_us:
            self._hear()
        while True:
            place = self._next_place()
            place_us = self._travel.us_at(place)
            if min(self._tick_us, place_us) > until_us:
                break
            if place_us <= self._tick_us:
                self.now_us = place_us
                self._arrive(place)
            else:
                self.now_us = self._tick_us
                self._move_to(self._travel.place_at(self.now_us, place))
                self._tick_us += TICK_US
                self._tick()
            self._look_at_outputs()
        self.now_us = until_us
        self._move_to(self._travel.place_at(until_us, place))
        if not self._uart.byte_us:
            self._uart.send(self.controller.take_frames(), self.now_us)

    def reset(self, boot_id: int | None = None) -> None:
        saved = self.controller.config
        self._uart.reset()
        self._boot_id = boot_id or self._boot_id
        self.controller = self._power_on(saved=saved)
        self._look_at_outputs()

    def put(self, data: bytes) -> int:
        return self._uart.put(data, self.now_us)

    def take(self) -> bytes:
        return self._uart.take()

    def notes(self) -> list[Note]:
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        pass

    def _power_on(self, **words: object) -> Controller:
        boot_id = self._boot_id
        if boot_id is None:  # from the system, not a seed: every start has another one, also of the same world
            boot_id = int.from_bytes(os.urandom(2), "little") or 1
        else:
            self._boot_id = boot_id + 1
        return self._make(boot_id, self._controller_us, encoder=self._encoder, observer=self._observer, **words)

    @property
    def _encoder(self) -> int:
        return (self._zero + self._travel.quarter // QUARTERS - self._untold) & U32

    @property
    def _controller_us(self) -> int:
        return (self._time_zero + int(self.now_us)) & U32

    def _note(self, what: What, level: bool) -> None:
        self._notes.append(Note(what, level, self.quarter, self.now_us, self.now_us - self._edge_us, self._heard))

    # Time and bytes

    def _tick(self) -> None:
        """A millisecond of the firmware's main loop: bytes as fast as the UART brings them, then time."""
        if self._encoder != self._told:
            self._tell_count()
        self._hear()
        levels = self._levels
        self.controller.on_inputs(self._controller_us, bin_ok=levels[Input.BIN], air_ok=levels[Input.AIR])
        self.controller.on_time(self._controller_us)
        self._uart.send(self.controller.take_frames(), self.now_us)

    def _hear(self) -> None:
        heard = self._uart.hear(self.now_us)
        while heard:
            frame, end, heard = heard.partition(b"\0")
            self._heard += len(frame + end)
            if end:
                self._note(What.HEARD, False)
            self.controller.on_bytes(frame + end, self._controller_us)

    # The belt

    def _next_place(self) -> int:
        """The nearest place ahead at which something may happen; every quarter of a belt that runs backwards."""
        quarter = self._travel.quarter
        if self._travel.step <= 0:
            return quarter - 1
        due = None if self._is_encoder_lost else self.controller.next_encoder()
        if due is None:
            return self._next_edge
        due_place = (quarter // QUARTERS + max(1, since32(due, self._encoder))) * QUARTERS
        return due_place if due_place < self._next_edge else self._next_edge

    def _find_edge(self) -> None:
        """The nearest end of a shadow ahead."""
        quarter = self._travel.quarter
        edges = (edge for shadows in self._shadows.values() for shadow in shadows for edge in shadow if edge > quarter)
        self._next_edge = min(edges, default=NEVER)

    def _arrive(self, place: int) -> None:
        before = self.quarter // QUARTERS
        self._move_to(place)
        if self.quarter // QUARTERS != before and not self._is_encoder_lost:
            self._tell_count()
        for beam, shadows in self._shadows.items():
            is_dark = any(first <= self.quarter < end for first, end in shadows)
            if is_dark != self._dark[beam]:
                self._dark[beam] = is_dark
                self._on_beam(beam, is_dark)
        self._find_edge()

    def _move_to(self, place: int) -> None:
        before = self._travel.quarter // QUARTERS
        self._travel.go_to(place)
        counts = place // QUARTERS - before
        if self._is_encoder_lost:
            self._untold += counts
        elif counts > 0:
            self._edge_us = self._travel.count_us

    def _tell_count(self) -> None:
        self._told = self._encoder
        self.controller.on_encoder(self._told, self._controller_us)

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
