"""A PLC on a simulated belt to wire against: the firmware's core, compiled, with its Modbus map behind a serial port.

As server the box polls it through the RTU server of the firmware. As client it polls the box and hands the blocks to
the same core. Time is the caller's, so a test moves it and the command paces it to the wall clock. Truth is kept apart
from the core: where the gate stood when a part was at it, and what verdict was on the wire for it.

Needs gcc. The library is compiled into a folder of the caller's, once.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Protocol

from firmware_bridge.modbus.client import Answered, RtuClient
from firmware_bridge.modbus.registers import BOX, PLC, SETUP, BoxBlock, MapError, SetupBlock, VerdictCode
from firmware_bridge.modbus.rtu import MS, Line, read_request, write_request
from firmware_bridge.reject.messages import EventKind
from firmware_bridge.wrap import U32, since32

MCU = Path(__file__).parents[1] / "mcu"
SOURCES = ("reject.c", "modbus_map.c", "modbus_rtu.c", "sim/plc_port.c")
FLAGS = ("-std=c99", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC")
OUT_BYTES = 256
NOTES = 256
FIRST_COUNT = 2**32 - 3000  # the encoder wraps early in every run
POLL_NS = 10 * MS


class CoreMissing(Exception):
    """The core cannot be compiled here. The text says what to install."""


class _Note(ctypes.Structure):
    _fields_ = (
        ("part_id", ctypes.c_uint32),
        ("encoder", ctypes.c_uint32),
        ("kind", ctypes.c_uint16),
        ("is_on", ctypes.c_uint16),
    )


def build(folder: Path) -> Path:
    """Compile the core into `folder` unless it is there. Raises CoreMissing."""
    library = folder / "plc_core.so"
    sources = [MCU / name for name in SOURCES]
    newest = max(path.stat().st_mtime_ns for path in (*sources, *MCU.glob("*.h")))
    if library.exists() and library.stat().st_mtime_ns >= newest:
        return library
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CoreMissing("no C compiler: apt-get install gcc libc6-dev")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = library.with_suffix(".new")
    done = subprocess.run(
        [compiler, *FLAGS, f"-I{MCU}", *map(str, sources), "-o", str(fresh)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CoreMissing(f"cannot compile the core: {done.stderr.strip()}")
    return fresh.replace(library)


@cache
def _load(library: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library))
    core, u8, u16, u32 = ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32
    lib.plc_new.restype, lib.plc_new.argtypes = core, [u16, u32, u32, u8, u32]
    lib.plc_free.argtypes = [core]
    lib.plc_hear.argtypes = [core, ctypes.c_char_p, u32, u32]
    lib.plc_time.argtypes = [core, u32]
    for name in ("plc_encoder", "plc_eye", "plc_confirm"):
        getattr(lib, name).argtypes = [core, u32, u32]
    lib.plc_inputs.argtypes = [core, u8, u32]
    lib.plc_next.restype, lib.plc_next.argtypes = ctypes.c_bool, [core, ctypes.POINTER(u32)]
    lib.plc_read.restype, lib.plc_read.argtypes = u8, [core, u16, u16, ctypes.c_char_p]
    lib.plc_write.restype, lib.plc_write.argtypes = u8, [core, u16, u16, ctypes.c_char_p, u32]
    lib.plc_take_out.restype, lib.plc_take_out.argtypes = u16, [core, ctypes.c_char_p]
    lib.plc_take_notes.restype, lib.plc_take_notes.argtypes = u16, [core, ctypes.POINTER(_Note)]
    for name in ("plc_torn", "plc_bad_crc"):
        getattr(lib, name).restype, getattr(lib, name).argtypes = u16, [core]
    return lib


class PlcCore:
    """The compiled core. Counts and microseconds wrap at 32 bits here."""

    def __init__(self, library: Path, *, boot_id: int, unit: int = 1, baud: int = 115_200, encoder: int = 0) -> None:
        self._lib = _load(library)
        self._core = self._lib.plc_new(boot_id, 0, encoder & U32, unit, baud)
        self._bytes = ctypes.create_string_buffer(OUT_BYTES)
        self._notes = (_Note * NOTES)()

    def close(self) -> None:
        core, self._core = self._core, None
        if core:
            self._lib.plc_free(core)

    def hear(self, data: bytes, now_us: int) -> None:
        self._lib.plc_hear(self._core, data, len(data), now_us & U32)

    def time(self, now_us: int) -> None:
        """About each millisecond."""
        self._lib.plc_time(self._core, now_us & U32)

    def encoder(self, count: int, now_us: int) -> None:
        self._lib.plc_encoder(self._core, count & U32, now_us & U32)

    def eye(self, count: int, now_us: int) -> None:
        self._lib.plc_eye(self._core, count & U32, now_us & U32)

    def confirm(self, count: int, now_us: int) -> None:
        self._lib.plc_confirm(self._core, count & U32, now_us & U32)

    def inputs(self, faults: int, now_us: int) -> None:
        self._lib.plc_inputs(self._core, faults, now_us & U32)

    def next_count(self) -> int | None:
        """The nearest count (u32) at which `encoder` will do something."""
        count = ctypes.c_uint32()
        return count.value if self._lib.plc_next(self._core, ctypes.byref(count)) else None

    def read(self, address: int, count: int) -> tuple[int, list[int]]:
        """Exception code, 0 when good, and registers."""
        code = self._lib.plc_read(self._core, address, count, self._bytes)
        raw = self._bytes.raw
        return code, [raw[2 * at] << 8 | raw[2 * at + 1] for at in range(count)] if not code else []

    def write(self, address: int, values: Sequence[int], now_us: int) -> int:
        """Exception code, 0 when good."""
        words = b"".join(value.to_bytes(2, "big") for value in values)
        return int(self._lib.plc_write(self._core, address, len(values), words, now_us & U32))

    def take_out(self) -> bytes:
        count = self._lib.plc_take_out(self._core, self._bytes)
        return self._bytes.raw[:count]

    def take_notes(self) -> list[tuple[int, bool, int, int]]:
        """Event kind (0: an edge of the gate), whether it opens, part id, count."""
        count = self._lib.plc_take_notes(self._core, self._notes)
        return [(note.kind, bool(note.is_on), note.part_id, note.encoder) for note in self._notes[:count]]

    @property
    def counts(self) -> dict[str, int]:
        return {"torn": self._lib.plc_torn(self._core), "bad_crc": self._lib.plc_bad_crc(self._core)}


@dataclass(slots=True)
class Part:
    """What happened to one part; counts go on growing."""

    part_id: int
    count: int  # at the eye
    verdict: VerdictCode | None = None  # the first one seen on the wire before its decide point
    outcome: EventKind | None = None  # as the core tells it
    pulse_error: int | None = None  # counts from where its pulse belongs
    is_removed: bool | None = None  # whether the gate was open when it stood there


class Station(Protocol):
    """How the blocks travel; see the two below."""

    def turn(self, data: bytes, now_ns: int) -> bytes:
        """Bytes from the box, bytes to the box."""


class PlcSim:
    """Belt, eye, gate and core. `turn` is called about each millisecond with what came from the box."""

    def __init__(
        self,
        library: Path,
        *,
        role: str = "server",
        unit: int = 1,
        line: Line | None = None,
        echo: bool = False,
        parts: int = 1 << 62,
        rate_hz: float = 10.0,
        counts_per_s: int = 5000,
        setup: SetupBlock | None = None,
        boot_id: int = 1,
        seed: int = 1,
    ) -> None:
        line = line or Line()
        self.core = PlcCore(library, boot_id=boot_id, unit=unit, baud=line.baud, encoder=FIRST_COUNT)
        self.parts: list[Part] = []
        self.stray = 0
        self._station: Station = _Server(self) if role == "server" else _Client(self, RtuClient(line, echo=echo), unit)
        self._left, self._counts_per_s = parts, counts_per_s
        self._spacing = counts_per_s / rate_hz
        self._rng = Random(seed)
        self._zero_ns: int | None = None
        self._moved_ns = 0
        self._count = FIRST_COUNT
        self._next_eye: int | None = None  # from the first ENABLE on
        self._to_gate: deque[Part] = deque()
        self._gone: deque[Part] = deque(maxlen=64)
        self._is_open = False
        self._result_seq: int | None = None
        self._setup = setup
        if setup is not None:
            self.core.write(SETUP.base, setup.pack(), 0)

    def close(self) -> None:
        self.core.close()

    @property
    def is_over(self) -> bool:
        return not self._left and not self._to_gate

    def turn(self, data: bytes, now_ns: int) -> bytes:
        """Everything up to now: first the belt, then what the box says. Returns bytes for the box."""
        if self._zero_ns is None:
            self._zero_ns = now_ns
        self._now_us = (now_ns - self._zero_ns) // 1000
        self._move(FIRST_COUNT + (now_ns - self._zero_ns) * self._counts_per_s // 1_000_000_000)
        out = self._station.turn(data, now_ns)
        self.core.time(self._now_us)
        self._settle()
        self._see_box()
        return out

    def truth(self) -> dict[str, int]:
        """missed: let through against its verdict, or without one; false: removed against its verdict in force."""
        done = [part for part in self.parts if part.is_removed is not None]
        is_default = [part.outcome in (EventKind.DEFAULTED, EventKind.OVERFLOW, None) for part in done]
        judged = [part for part, default in zip(done, is_default, strict=True) if not default]
        return {
            "parts": len(done),
            "accepted": sum(part.verdict == VerdictCode.ACCEPT for part in judged),
            "rejected": sum(part.verdict == VerdictCode.REJECT for part in judged),
            "defaulted": sum(is_default),
            "missed": sum(not part.is_removed and part.verdict != VerdictCode.ACCEPT for part in done),
            "false": sum(bool(part.is_removed) and part.verdict == VerdictCode.ACCEPT for part in judged),
            "stray": self.stray,
            "pulse_error_counts": max(
                (abs(part.pulse_error) for part in done if part.pulse_error is not None), default=0
            ),
        }

    # The belt

    def _move(self, until: int) -> None:
        while (due := self._next_due(until)) is not None:
            self._count = due
            self.core.encoder(due, self._now_us)
            self._settle()
            while self._to_gate and self._gate_of(self._to_gate[0]) <= due:
                part = self._to_gate.popleft()
                part.is_removed = self._is_open
                self._gone.append(part)
            if self._next_eye is not None and self._left and self._next_eye <= due:
                self._at_eye(due)
        self._count = max(self._count, until)
        self.core.encoder(self._count, self._now_us)
        self._settle()

    def _next_due(self, until: int) -> int | None:
        due = []
        core = self.core.next_count()
        if core is not None:
            due.append(max(self._count, self._count + since32(core, self._count)))
        if self._next_eye is not None and self._left:
            due.append(self._next_eye)
        if self._to_gate:
            due.append(self._gate_of(self._to_gate[0]))
        return min((count for count in due if count <= until), default=None)

    def _at_eye(self, count: int) -> None:
        part = Part(len(self.parts) + 1, count)
        self.parts.append(part)
        self._to_gate.append(part)
        self._left -= 1
        self._next_eye = count + max(1, round(self._spacing * self._rng.uniform(0.7, 1.3)))
        self.core.eye(count, self._now_us)

    def _gate_of(self, part: Part) -> int:
        return part.count + (self._setup.fire_counts if self._setup else 1000)

    def _settle(self) -> None:
        for kind, is_on, part_id, encoder in self.core.take_notes():
            if kind == 0:
                self._is_open = is_on
                if is_on:
                    self._on_pulse(encoder)
            elif part_id and part_id <= len(self.parts) and kind in _OUTCOMES:
                self.parts[part_id - 1].outcome = EventKind(kind)

    def _on_pulse(self, encoder: int) -> None:
        errors = [(since32(encoder, self._gate_of(part)), part) for part in (*self._gone, *list(self._to_gate)[:4])]
        error, part = min(errors, key=lambda entry: abs(entry[0]), default=(1 << 31, None))
        if part is None or abs(error) > 1:
            self.stray += 1
        if part is not None:
            part.pulse_error = error

    def _see_box(self) -> None:
        """The verdict on the wire, as an onlooker reads it."""
        _, words = self.core.read(BOX.base, BOX.size)
        try:
            box = BoxBlock.unpack(words)
        except MapError:
            return
        _, setup = self.core.read(SETUP.base, SETUP.size)
        self._setup = SetupBlock.unpack(setup)
        if self._next_eye is None and self._is_enabled():
            self._next_eye = self._count + round(self._spacing)
        if box.result_seq == self._result_seq:
            return
        self._result_seq = box.result_seq
        if box.verdict and 1 <= box.part_id <= len(self.parts):
            part = self.parts[box.part_id - 1]
            if part.verdict is None and self._count < part.count + self._setup.decide_counts:
                part.verdict = VerdictCode(box.verdict)

    def _is_enabled(self) -> bool:
        return bool(self.core.read(PLC.address("control"), 1)[1][0] & 1)


_OUTCOMES = (EventKind.PASSED, EventKind.FIRED, EventKind.DEFAULTED, EventKind.OVERFLOW)


class _Server:
    """The box polls: bytes go to the firmware's RTU server."""

    def __init__(self, sim: PlcSim) -> None:
        self._sim = sim

    def turn(self, data: bytes, now_ns: int) -> bytes:
        if data:
            self._sim.core.hear(data, self._sim._now_us)
        return self._sim.core.take_out()


class _Client:
    """The PLC polls: it writes its block to the box and reads the box's, turn by turn."""

    def __init__(self, sim: PlcSim, client: RtuClient, unit: int) -> None:
        self.errors = 0
        self._sim, self._client, self._unit = sim, client, unit
        self._is_write_next = True
        self._next_ns = 0

    def turn(self, data: bytes, now_ns: int) -> bytes:
        client, core = self._client, self._sim.core
        if data:
            client.feed(data, now_ns)
        client.tick(now_ns)
        answer = client.take_answer()
        if isinstance(answer, Answered):
            if answer.values:
                core.write(BOX.base, answer.values, self._sim._now_us)
        elif answer is not None:
            self.errors += 1
        if client.is_free(now_ns) and now_ns >= self._next_ns:
            self._ask(now_ns)
        return client.take_output()

    def _ask(self, now_ns: int) -> None:
        if self._is_write_next:
            _, words = self._sim.core.read(PLC.base, PLC.size)
            self._client.ask(write_request(self._unit, PLC.base, words), now_ns)
        else:
            self._client.ask(read_request(self._unit, BOX.base, BOX.size), now_ns)
            self._next_ns = now_ns + POLL_NS
        self._is_write_next = not self._is_write_next
