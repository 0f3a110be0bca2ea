"""The firmware's C core on a simulated belt, behind a real pty, in a process of its own; bad days included.

A host opens the pty as it opens a serial port, dies, comes back; the controller goes on. Bytes on the wire are real, so
are the scheduler's delays on both sides. The belt is stepped through every count at which something happens, in order,
as interrupts do, so that the pulse is at the exact count however late the process was woken.

Started by whoever has a belt::

    sim = ControllerSim(belt, seed=1)
    announce(sim.path)
    while not stopping():
        sim.step(0.001)
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
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Protocol

from firmware_bridge.reject.controller import Controller, GateEdge, Transport
from firmware_bridge.reject.frames import cobs_decode
from firmware_bridge.reject.messages import EventKind, EventMsg
from firmware_bridge.sim.belt import BadBelt, Drive
from firmware_bridge.wrap import U32, since32

TICK_S = 0.001  # of the moving belt; the firmware's own tick
STANDING_TICK_S = 0.01
STARVED_NS = 20_000_000  # woken this late, what the host sent meanwhile counts as in time
CONFIRM_AFTER_COUNTS = 25  # from the pulse to the sensor behind the gate
LEVELS_S = 0.02  # levels are told for longer than that after a change; the controller believes what stood for 10 ms
BOUNCE_US = (40, 90, 150)  # after the first break, and at the same count
EYES_KEPT = 64  # parts that may come back to the eye
REMEMBERED_PARTS = 200_000
READ_BYTES = 4096


class Belt(Protocol):
    """What moves the parts. Counts are plain integers that go on growing; the wire wraps them."""

    def begin(self, now_ns: int) -> None:
        """Start moving. Called when the controller is armed for the first time; later calls change nothing."""

    def encoder_at(self, now_ns: int) -> int:
        """Counts at a moment; constant until `begin`."""

    def has_part(self, index: int) -> bool: ...

    def eye_counts(self, index: int) -> int:
        """The count at which part `index`, from 0, breaks the photo-eye. Grows with `index`."""


@dataclass(frozen=True, slots=True)
class BadWire:
    """Faults to live through; shares are 0..1 and drawn from the simulator's seed."""

    lose_acks: float = 0.0  # of answers to the host, events not among them
    flip_bytes: float = 0.0  # of bytes, both ways, one bit each
    late_trigger_ms: float = 0.0  # delay of events, triggers among them
    stuck_gate: float = 0.0  # of pulses at which the gate does not move


@dataclass(slots=True)
class PartTruth:
    """What really happened to one part."""

    index: int
    boot_id: int
    part_id: int  # 0: not followed, because the encoder was lost or the belt ran backwards
    encoder: int  # u32, at the eye
    outcome: str | None = None  # "passed", "fired", "defaulted"; None: not at the gate yet, or the controller forgot
    pulse_encoder: int | None = None  # u32, of its own pulse
    is_removed: bool | None = None  # whether the gate was open when it stood there; None: not there yet


@dataclass(frozen=True, slots=True)
class Truth:
    """What the world knows. `stray`: pulses without a part; `sweeps`: the gate held open over untracked parts."""

    parts: tuple[PartTruth, ...]
    pulses: int = 0
    stray: int = 0
    sweeps: int = 0
    stuck: int = 0
    resets: int = 0
    counts: dict[str, int] = field(default_factory=dict)


_OUTCOMES = {EventKind.PASSED: "passed", EventKind.FIRED: "fired", EventKind.DEFAULTED: "defaulted",
             EventKind.OVERFLOW: "defaulted"}  # fmt: skip


class ControllerSim:
    """See the module. `path` is what the host opens. One thread calls `step`; `truth` by the same one."""

    def __init__(
        self,
        belt: Belt,
        *,
        seed: int = 1,
        bad: BadWire | None = None,
        bad_belt: BadBelt | None = None,
        boot_id: int | None = None,
        transport: Transport = Transport.FRAMES,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._belt = belt
        self._bad_belt = bad_belt or BadBelt()
        self._transport = transport
        self._bad = bad or BadWire()
        self._rng = Random(seed)
        self._clock = clock
        self._power_on_ns = clock()
        self._time_offset_us = self._rng.randrange(2**32)
        self._rate = 1.0 + self._rng.uniform(-300e-6, 300e-6)  # a crystal, and a host that is not perfect either
        self._last_ns = self._power_on_ns
        self._count = self._raw = belt.encoder_at(self._power_on_ns)
        self._drive = Drive(self._bad_belt, self._count)
        self._missed = 0  # counts that a lost encoder did not tell
        self._begun_ns: int | None = None
        self._levels = (True, True)  # bin, air
        self._telling_ns: int | None = None  # since when levels are told; None: they are known
        self._eyes: deque[int] = deque(maxlen=EYES_KEPT)  # counts of parts that have passed the eye
        self._again: list[int] = []  # those of them that break it once more, in order
        self._next_index = 0
        self._parts: deque[PartTruth] = deque(maxlen=REMEMBERED_PARTS)
        self._by_key: dict[tuple[int, int], PartTruth] = {}  # between eye and gate
        self._to_gate: deque[tuple[int, PartTruth]] = deque()  # count at the gate
        self._confirms: deque[int] = deque()
        self._is_gate_open = False
        self._tally = dict.fromkeys(("pulses", "stray", "sweeps", "stuck", "resets"), 0)
        self._late: deque[tuple[int, bytes]] = deque()
        self._dropped = 0
        self.controller = self._power_on(boot_id)
        self._master, self._slave = pty.openpty()  # the slave end stays open here: no error while no host is there
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._poll = select.poll()
        self._poll.register(self._master, select.POLLIN)

    def step(self, timeout_s: float = TICK_S) -> None:
        """Wait for the host or the next tick, at most `timeout_s`, and do what is due."""
        tick_s = STANDING_TICK_S if self._begun_ns is None else TICK_S
        readable = self._poll.poll(1000 * min(timeout_s, tick_s))
        now_ns = self._clock()
        data = self._read() if readable else b""
        if now_ns - self._last_ns > STARVED_NS:
            self._hear(data, now_ns)
            data = b""
        self._move_belt(now_ns)
        self._hear(data, now_ns)
        self._feel(now_ns)
        self.controller.on_time(self._us(now_ns))
        self._settle_edges()
        self._flush(now_ns)

    @property
    def is_holding(self) -> bool:
        """The feed output: who feeds the belt is to hold it."""
        return self.controller.is_holding

    def reset(self, boot_id: int | None = None) -> None:
        """Pull the reset line in mid-run: parts and events are forgotten, the configuration in EEPROM is not."""
        self._tally["resets"] += 1
        if self.controller.gate:
            self._is_gate_open = False
        self._by_key.clear()
        self.controller = self._power_on(boot_id, restart=True)

    def truth(self) -> Truth:
        """What happened so far; picklable."""
        counts = {**asdict(self.controller.counts), **self.controller.wire_counts, "dropped": self._dropped}
        return Truth(tuple(self._parts), **self._tally, counts=counts)

    def close(self) -> None:
        for fd in (self._master, self._slave):
            try:
                os.close(fd)
            except OSError:
                pass

    # Power and time

    def _power_on(self, boot_id: int | None, *, restart: bool = False) -> Controller:
        if boot_id is None:  # from the system, not the seed: every start has another one, also of the same world
            boot_id = int.from_bytes(os.urandom(2), "little") or 1
        saved = self.controller.config if restart else None
        now_us = self._us(self._last_ns)
        ready_us = int(LEVELS_S * 1e6)  # it has been on for so long, and has read its inputs
        controller = Controller(
            boot_id, (now_us - ready_us) & U32, encoder=self._told(self._count), saved=saved, observer=self._observe,
            transport=self._transport,
        )  # fmt: skip
        for at_us in (now_us - ready_us, now_us):
            controller.on_inputs(at_us & U32, bin_ok=self._levels[0], air_ok=self._levels[1])
        return controller

    def _us(self, now_ns: int) -> int:
        return (self._time_offset_us + int((now_ns - self._power_on_ns) * self._rate) // 1000) & U32

    # Belt, eye and gate

    def _told(self, count: int) -> int:
        """The controller's count of this place, u32."""
        return (count - self._missed) & U32

    def _is_on(self, fault: tuple[float, float] | None, now_ns: int) -> bool:
        seconds = None if self._begun_ns is None else (now_ns - self._begun_ns) / 1e9
        return self._bad_belt.is_in(fault, seconds)

    def _feel(self, now_ns: int) -> None:
        """Tell the levels of the inputs, for a while after each change."""
        bad = self._bad_belt
        levels = (not self._is_on(bad.bin_full, now_ns), not self._is_on(bad.air_low, now_ns))
        if levels != self._levels:
            self._levels = levels
            self._telling_ns = now_ns
        if self._telling_ns is not None:
            self.controller.on_inputs(self._us(now_ns), bin_ok=levels[0], air_ok=levels[1])
            if now_ns - self._telling_ns > LEVELS_S * 1e9:
                self._telling_ns = None

    def _move_belt(self, now_ns: int) -> None:
        """Everything on the belt between the last step and now, in order."""
        raw_now = max(self._raw, self._belt.encoder_at(now_ns))
        from_ns, from_raw = self._last_ns, self._raw
        ns_per_count = (now_ns - from_ns) / max(1, raw_now - from_raw)
        is_lost = self._is_on(self._bad_belt.encoder_lost, now_ns)
        raw = from_raw
        for leg in self._drive.to(raw_now):
            start_us = self._us(from_ns + round((raw - from_raw) * ns_per_count))
            self._go(leg.count, start_us, ns_per_count / 1000, is_lost)
            raw = leg.raw
        self._raw = raw_now
        self._last_ns = now_ns
        if not is_lost:
            self.controller.on_encoder(self._told(self._count), self._us(now_ns))
        self._settle_edges()

    def _go(self, until: int, start_us: int, us_per_count: float, is_lost: bool) -> None:
        """One leg of the belt, in either direction."""
        start = self._count

        def us_at(count: int) -> int:
            return (start_us + round(abs(count - start) * us_per_count)) & U32

        if until < start:
            self._again = [eye for eye in self._eyes if until < eye <= start]
            for eye in reversed(self._again):
                self._count = eye
                self.controller.on_eye(self._told(eye), us_at(eye))
        while (due := self._next_count(until, is_lost)) is not None:
            if is_lost:
                self._missed += due - self._count
            self._count = due
            self._at_count(due, us_at(due))
        if is_lost:
            self._missed += until - self._count
        self._count = until

    def _next_count(self, until: int, is_lost: bool) -> int | None:
        """The nearest count up to `until` at which something happens."""
        due = []
        controller_due = None if is_lost else self.controller.next_encoder()
        if controller_due is not None:
            due.append(max(self._count, self._count + since32(controller_due, self._told(self._count))))
        if self._begun_ns is not None and self._belt.has_part(self._next_index):
            due.append(self._belt.eye_counts(self._next_index))
        if self._to_gate:
            due.append(self._to_gate[0][0])
        if self._confirms:
            due.append(self._confirms[0])
        if self._again:
            due.append(self._again[0])
        nearest = min(due, default=until + 1)
        return nearest if nearest <= until else None

    def _at_count(self, count: int, now_us: int) -> None:
        self.controller.on_encoder(self._told(count), now_us)
        self._settle_edges()
        while self._to_gate and self._to_gate[0][0] <= count:
            _, part = self._to_gate.popleft()
            part.is_removed = self._is_gate_open
        while self._confirms and self._confirms[0] <= count:
            self._confirms.popleft()
            self.controller.on_confirm(self._told(count), now_us)
        while self._again and self._again[0] <= count:
            self.controller.on_eye(self._told(self._again.pop(0)), now_us)
        while self._begun_ns is not None and self._belt.has_part(self._next_index):
            if self._belt.eye_counts(self._next_index) > count:
                break
            self._at_eye(count, now_us)

    def _at_eye(self, count: int, now_us: int) -> None:
        told, part_id = self._told(count), self.controller.next_part
        part = PartTruth(self._next_index, self.controller.boot_id, part_id, told)
        self._next_index += 1
        self._parts.append(part)
        self._eyes.append(count)
        self._by_key[part.boot_id, part.part_id] = part
        config = self.controller.config
        if config is not None:
            self._to_gate.append((count + config.fire_counts, part))
        self.controller.on_eye(told, now_us)
        if self.controller.next_part == part_id:
            del self._by_key[part.boot_id, part_id]
            part.part_id = 0
        if self._bad_belt.bounce and self._rng.random() < self._bad_belt.bounce:
            for after_us in BOUNCE_US:
                self.controller.on_eye(told, (now_us + after_us) & U32)

    def _settle_edges(self) -> None:
        for edge in self.controller.edges:
            if edge.is_on:
                self._gate_on(edge)
            else:
                self._is_gate_open = False
        self.controller.edges.clear()

    def _gate_on(self, edge: GateEdge) -> None:
        self._tally["pulses"] += 1
        if self._rng.random() < self._bad.stuck_gate:
            self._tally["stuck"] += 1
        else:
            self._is_gate_open = True
            if edge.part_id:
                self._confirms.append(self._count + CONFIRM_AFTER_COUNTS)
        if not edge.part_id:
            self._tally["sweeps"] += 1
        elif not any((count - self._count) in (-1, 0, 1) for count, _ in self._to_gate):
            self._tally["stray"] += 1

    def _observe(self, event: EventMsg) -> None:
        outcome = _OUTCOMES.get(event.event)
        if outcome is None:
            return
        part = self._by_key.pop((event.boot_id, event.part_id), None)
        if part is not None:
            part.outcome = outcome
            if event.event is EventKind.FIRED or event.event is EventKind.DEFAULTED:
                part.pulse_encoder = event.encoder

    # Wire

    def _read(self) -> bytes:
        try:
            return os.read(self._master, READ_BYTES)
        except OSError as err:
            if err.errno in (errno.EIO, errno.EAGAIN):  # nobody there, or nothing after all
                return b""
            raise

    def _hear(self, data: bytes, now_ns: int) -> None:
        if not data:
            return
        self.controller.on_bytes(self._flip(data), self._us(now_ns))
        if self.controller.is_armed and self._begun_ns is None:
            self._begun_ns = now_ns
            self._belt.begin(now_ns)

    def _flush(self, now_ns: int) -> None:
        for frame in self.controller.take_frames():
            is_event = self._transport is Transport.FRAMES and (cobs_decode(frame[:-1]) or b"\0")[0] == EventMsg.KIND
            if not is_event:
                if self._rng.random() >= self._bad.lose_acks:
                    self._write(frame)
            elif self._bad.late_trigger_ms:
                self._late.append((now_ns + int(self._bad.late_trigger_ms * 1e6), frame))
            else:
                self._write(frame)
        while self._late and self._late[0][0] <= now_ns:
            self._write(self._late.popleft()[1])

    def _write(self, frame: bytes) -> None:
        try:
            os.write(self._master, self._flip(frame))
        except OSError as err:  # a UART does not wait for a host that does not read
            if err.errno not in (errno.EAGAIN, errno.EIO):
                raise
            self._dropped += 1

    def _flip(self, data: bytes) -> bytes:
        if not self._bad.flip_bytes:
            return data
        return bytes(
            byte ^ (1 << self._rng.randrange(8)) if self._rng.random() < self._bad.flip_bytes else byte for byte in data
        )


def run_controller(
    belt: Belt,
    announce: Callable[[str], None],
    is_stopping: Callable[[], bool],
    *,
    seed: int = 1,
    bad: BadWire | None = None,
    bad_belt: BadBelt | None = None,
    boot_id: int | None = None,
) -> Truth:
    """Run until `is_stopping`, asked at each tick. `announce` is given the path that the host opens."""
    sim = ControllerSim(belt, seed=seed, bad=bad, bad_belt=bad_belt, boot_id=boot_id)
    try:
        announce(sim.path)
        while not is_stopping():
            sim.step()
        return sim.truth()
    finally:
        sim.close()
