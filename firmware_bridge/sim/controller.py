"""The controller on the simulated belt behind a real pty, paced to the clock; bad days included.

A host opens the pty as it opens a serial port, dies, comes back; the controller goes on. Bytes on the wire are real, so
are the scheduler's delays on both sides. `PtyLine` is any board, `ControllerSim` the firmware's own C core with the
truth about each part::

    sim = ControllerSim(Laid(parts=40), gate_counts=1000)
    announce(sim.path)
    while not stopping():
        sim.step()
    truth = sim.truth()

Kept light: standard library only, ready in 0.1 s.
"""

from __future__ import annotations

import errno
import os
import pty
import select
import time
import tty
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Protocol

from firmware_bridge.reject.controller import Controller
from firmware_bridge.sim.belt import Act, Belt, BeltFaults, Fact, Parts
from firmware_bridge.sim.board import QUARTERS, Board
from firmware_bridge.sim.host_board import HostBoard
from firmware_bridge.sim.truth import Truth, TruthBook
from firmware_bridge.sim.uart import AT_ONCE_US
from firmware_bridge.sim.wire import Wire, WireFaults
from firmware_bridge.wrap import U32

STEP_US = 1000.0
STANDING_STEP_US = 10_000.0
BYTEWISE_STEP_US = 200.0  # one byte each: 5000 a second, half of what 115200 baud brings
BEHIND_US = 5000.0  # catch up in pieces: the host is heard in between
STARVED_US = 20_000.0  # woken later than that, time on the belt has stood still: a controller is not slowed by the box
READY_US = 20_000.0  # it has been on for so long when the port appears, and has read its inputs
READ_BYTES = 4096
STEP_S = 0.001
CRYSTAL = 300e-6  # a crystal, and a host that is not perfect either


class Drive(Protocol):
    """What moves the belt, where that is not the controller's own world."""

    def begin(self, now_ns: int) -> None:
        """Start moving. Called when the controller is healthy for the first time; later calls change nothing."""

    def encoder_at(self, now_ns: int) -> int:
        """Counts at a moment; constant until `begin`."""


class SerialAdapter:
    """A pty, under a name of its own where one is given, which can be pulled."""

    def __init__(self, link: Path | None = None) -> None:
        self._link = link
        self._master = self._slave = -1
        self.dropped = 0
        self.plug()

    @property
    def path(self) -> str:
        return os.ttyname(self._slave)

    def plug(self) -> None:
        if self._master >= 0:
            return
        self._master, self._slave = pty.openpty()  # the slave stays open here: no error while no host is there
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        if self._link is not None:
            fresh = self._link.with_name(self._link.name + ".new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.path)
            fresh.replace(self._link)

    def pull(self) -> None:
        if self._master < 0:
            return
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        for fd in (self._slave, self._master):
            os.close(fd)
        self._master = self._slave = -1

    def wait(self, timeout_s: float, others: Iterable[int] = ()) -> tuple[bool, list[int]]:
        """Whether the host has written, and readable ones of `others`; returns early with either."""
        fds = [*others, self._master] if self._master >= 0 else [*others]
        readable, _, _ = select.select(fds, [], [], max(0.0, timeout_s))
        return self._master in readable, [fd for fd in readable if fd != self._master]

    def read(self, most: int) -> bytes:
        try:
            return os.read(self._master, most) if self._master >= 0 else b""
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.EIO):  # nothing after all, or nobody there
                return b""
            raise

    def write(self, data: bytes) -> None:
        """A UART does not wait for a host that does not read."""
        if self._master < 0:
            return
        try:
            self.dropped += len(data) - os.write(self._master, data)
        except OSError as err:
            if err.errno not in (errno.EAGAIN, errno.EIO):
                raise
            self.dropped += len(data)


class PtyLine:
    """A belt with its board behind a pty. One thread calls `step`; on_facts: told what happened, before the host is."""

    def __init__(
        self,
        board: Board,
        parts: Parts,
        gate_counts: Callable[[], int | None],
        *,
        script: Sequence[Act] = (),
        faults: BeltFaults | None = None,
        wire: WireFaults | None = None,
        seed: int = 1,
        link: Path | None = None,
        drive: Drive | None = None,
        rate: float = 1.0,
        standing_us: float = STEP_US,
        clock: Callable[[], int] = time.monotonic_ns,
        on_facts: Callable[[list[Fact]], None] = lambda _: None,
    ) -> None:
        to_host = wire or WireFaults()
        to_controller = replace(to_host, lose_answers=0.0, late_events_ms=0.0)
        self.belt = Belt(board, parts, gate_counts, script=script, faults=faults, seed=seed, on_act=self._act)
        self.adapter = SerialAdapter(link)
        self.starved = 0
        self._wires = (Wire(to_controller, seed + 1), Wire(to_host, seed + 2))
        self._is_bytewise, self._standing_us = to_host.is_bytewise, standing_us
        self._tail: list[bytes] = []
        self._drive, self._rate, self._clock, self._on_facts = drive, rate, clock, on_facts
        self._zero_ns = clock() - round(board.now_us * 1000 / rate)  # when the board's time began

    @property
    def path(self) -> str:
        """What the host opens."""
        return self.adapter.path

    @property
    def damaged(self) -> int:
        return sum(wire.damaged for wire in self._wires)

    def step(self, timeout_s: float = STEP_S, others: Sequence[int] = ()) -> list[int]:
        """Wait for the host or the next tick, at most `timeout_s`, and do what is due. Readable ones of `others`."""
        is_heard, readable = True, list[int]()  # one that is behind looks without waiting
        step_us = BYTEWISE_STEP_US if self._is_bytewise else STEP_US if self.belt.is_moving else self._standing_us
        behind_us = self._behind_us()
        if behind_us < step_us:
            is_heard, readable = self.adapter.wait(min(timeout_s, (step_us - behind_us) / 1e6), others)
            behind_us = self._behind_us()
        if behind_us > STARVED_US and self._drive is None:
            self._zero_ns += round((behind_us - BEHIND_US) * 1000 / self._rate)
            self.starved += 1
        self._turn(min(max(behind_us, 0.0), BEHIND_US), is_heard)
        return readable

    def close(self) -> None:
        self.adapter.pull()
        self.belt.board.close()

    def _behind_us(self) -> float:
        return (self._clock() - self._zero_ns) * self._rate / 1000 - self.belt.board.now_us

    def _turn(self, us: float, is_heard: bool) -> None:
        to_controller, to_host = self._wires
        board = self.belt.board
        if is_heard:
            to_controller.send(self.adapter.read(1 if self._is_bytewise else READ_BYTES), board.now_us)
        for piece in to_controller.receive(board.now_us):
            self.belt.hear(piece)
        was_moving = self.belt.is_moving
        self._follow(us)
        self._on_facts(self.belt.run(us))
        if self._drive is not None and self.belt.is_moving and not was_moving:
            self._drive.begin(self._ns_at(board.now_us))
            self.belt.speed(0)
        to_host.send(board.take(), board.now_us)
        self._tail += to_host.receive(board.now_us)
        pieces, self._tail = (self._tail[:1], self._tail[1:]) if self._is_bytewise else (self._tail, [])
        for piece in pieces:
            self.adapter.write(piece)

    def _follow(self, us: float) -> None:
        """The speed at which the belt is where its drive has it when this turn is over."""
        if self._drive is None or not self.belt.is_moving or not us:
            return
        counts = self._drive.encoder_at(self._ns_at(self.belt.board.now_us + us)) - self.belt.parts.first_count
        quarters = max(0, counts * QUARTERS - self.belt.board.quarter)
        self.belt.speed(quarters * 1e6 / us * (1 + 1e-9))  # not a rounding error late

    def _ns_at(self, board_us: float) -> int:
        return self._zero_ns + round(board_us * 1000 / self._rate)

    def _act(self, act: Act) -> None:
        if act.verb != "cable":
            return
        for wire in self._wires:
            wire.unplug() if act.value == "out" else wire.plug()
        if act.value == "out":
            self._tail.clear()
            self.adapter.pull()
        else:
            self.adapter.plug()


class ControllerSim(PtyLine):
    """The host build of the core, whose answers take no time on the wire, and the truth about each part.

    make: another controller, or a PLC (`sim.plc`). gate_counts: from the eye to the gate; None: where the controller is
    set to fire.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        gate_counts: int | None = None,
        script: Sequence[Act] = (),
        faults: BeltFaults | None = None,
        wire: WireFaults | None = None,
        seed: int = 1,
        boot_id: int | None = None,
        make: Callable[..., Controller] = Controller,
        drive: Drive | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        rng, self._book = Random(seed), TruthBook()
        self.board = HostBoard(
            encoder=parts.first_count & U32,
            time_us=rng.randrange(2**32),
            boot_id=boot_id,
            make=make,
            observer=self._book.observe,
            byte_us=AT_ONCE_US,
        )
        self.board.run(READY_US)
        self._given = gate_counts
        super().__init__(
            self.board,
            parts,
            self._gate_counts,
            script=script,
            faults=faults,
            wire=wire,
            seed=seed,
            drive=drive,
            rate=1.0 + rng.uniform(-CRYSTAL, CRYSTAL),
            standing_us=STANDING_STEP_US,
            clock=clock,
            on_facts=self._book.take,
        )
        self._book.belt = self.belt

    @property
    def controller(self) -> Controller:
        return self.board.controller

    @property
    def is_holding(self) -> bool:
        """The feed output: who feeds the belt is to hold it."""
        return self.controller.is_holding

    def reset(self, boot_id: int | None = None) -> None:
        """Pull the reset line in mid-run: parts and events are forgotten, the configuration in EEPROM is not."""
        self.board.reset(boot_id)
        self._book.forget()

    def truth(self) -> Truth:
        """What happened so far; picklable."""
        controller, book = self.controller, self._book
        counts = {**asdict(controller.counts), **controller.wire_counts, "dropped": self.adapter.dropped}
        return Truth(tuple(book.parts), **book.tally, counts=counts)

    def _gate_counts(self) -> int | None:
        config = self.controller.config
        return self._given if self._given is not None else config.fire_counts if config is not None else None
