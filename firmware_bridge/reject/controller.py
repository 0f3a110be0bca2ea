"""One reject controller in this process: the firmware's own C core (`mcu/`), driven by hand.

No I/O and no clock. In go bytes from the wire, counts of the encoder at which something happens, levels of the inputs,
and the time; out come bytes and edges of the gate. The rules are in `mcu/reject.h`. Any number of controllers live
beside each other; each belongs to one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from firmware_bridge.reject import core
from firmware_bridge.reject.messages import Config, EventKind, EventMsg, Flags, Verdict
from firmware_bridge.wrap import U16, U32

PART_SLOTS = 48  # as in mcu/reject.h and mcu/link.h; a test compares
EVENT_SLOTS = 48
EVENT_WINDOW = 8
CHUNK = 256  # bytes handed over at once; what they are answered with fits the library's buffer
BLOCK_BYTES = 256  # a block is laid out whole, whatever is asked of it; more than MODBUS_MAX_WORDS
MODBUS_UNIT, MODBUS_BAUD = 1, 115_200


class Transport(StrEnum):
    """How the host talks to it; a strap decides when the firmware starts."""

    FRAMES = "frames"
    MODBUS = "modbus"


@dataclass(frozen=True, slots=True)
class GateEdge:
    """The gate's solenoid goes on or off. A pulse that begins inside another one gives its own `on` edge."""

    is_on: bool
    part_id: int  # 0 for a sweep over parts that are not followed, and for off edges
    encoder: int
    time_us: int


@dataclass(frozen=True, slots=True)
class ControllerCounts:
    """What went wrong since power-on; each stops at 65535."""

    not_ours: int  # good CRC, but no message, or of another boot
    overwritten: int  # events lost to a host that stayed away
    overflows: int
    trips: int
    resends: int
    bounces: int  # breaks of the eye that were no part
    dropped: int  # answers that found no room in the port


class Controller:
    """One controller from power-on. `observer` is told every event, before the call that made it returns."""

    def __init__(
        self,
        boot_id: int,
        now_us: int = 0,
        *,
        encoder: int = 0,
        saved: Config | None = None,  # the configuration before a restart, which the firmware keeps in EEPROM
        observer: Callable[[EventMsg], None] | None = None,
        transport: Transport = Transport.FRAMES,
        unit: int = MODBUS_UNIT,
        baud: int = MODBUS_BAUD,
        next_part: int = 1,
        next_event: int = 0,
        library: Path | None = None,
    ) -> None:
        self.boot_id = boot_id & U16
        self.edges: list[GateEdge] = []  # for the caller to take and clear
        self._transport = transport
        self._observer = observer
        self._out = bytearray()
        self._core: Any = core.load(library)
        self._memory = ctypes.create_string_buffer(core.about(self._core).host_size + ctypes.alignment(ctypes.c_void_p))
        self._host = ctypes.addressof(self._memory)
        self._host += -self._host % ctypes.alignment(ctypes.c_void_p)
        places = (ctypes.c_void_p * 4)()
        self._core.host_places(self._host, places)
        news, self._bytes_at, self._edges_at, self._events_at = (place or 0 for place in places)
        self._news = core.News.from_address(news)
        unit = unit if transport is Transport.MODBUS else 0
        start = core.Start(self.boot_id, now_us & U32, encoder & U32, next_part, next_event, unit, baud)
        if saved is not None:
            start.has_saved, start.saved = 1, core.Values(*(getattr(saved, name) for name, _ in core.Values._fields_))
        self._core.host_init(self._host, ctypes.byref(start))
        self._take_news()

    # What a caller sees

    @property
    def flags(self) -> Flags:
        return Flags(self._news.flags)

    @property
    def is_armed(self) -> bool:
        return bool(self._news.flags & 1)

    @property
    def is_tripped(self) -> bool:
        return bool(self._news.flags & 2)

    @property
    def is_healthy(self) -> bool:
        """The healthy output, which the machine's safety chain reads."""
        return bool(self._news.is_healthy)

    @property
    def is_holding(self) -> bool:
        """The feed output is low: the host asks for a controlled hold."""
        return bool(self._news.is_held)

    @property
    def gate(self) -> bool:
        return bool(self._news.flags & 8)

    @property
    def next_part(self) -> int:
        return int(self._news.next_part)

    @property
    def config(self) -> Config | None:
        """The one in force; what the firmware keeps in EEPROM."""
        values = core.Values()
        if not self._core.host_config(self._host, ctypes.byref(values)):
            return None
        kept = {name: getattr(values, name) for name, _ in core.Values._fields_}
        return Config(self.boot_id, **{**kept, "default": Verdict(kept["default"])})

    @property
    def counts(self) -> ControllerCounts:
        told = self._tallies()
        return ControllerCounts(told.not_ours, told.overwritten, told.overflows, told.trips, told.resends,
                                told.bounces, told.dropped)  # fmt: skip

    @property
    def wire_counts(self) -> dict[str, int]:
        told = self._tallies()
        return {"frames": told.frames, "bad_crc": told.bad_crc, "malformed": told.malformed,
                "oversize": told.oversize}  # fmt: skip

    def take_frames(self) -> list[bytes]:
        """Frames to send, whole ones, in order. With Modbus: what there is to send, as one piece."""
        if not self._out:
            return []
        sent = bytes(self._out)
        self._out.clear()
        if self._transport is Transport.MODBUS:
            return [sent]
        return [body + b"\0" for body in sent.split(b"\0")[:-1]]

    def next_encoder(self) -> int | None:
        """The nearest count at which `on_encoder` will do something; None while nothing is under way.

        Calling `on_encoder` at these counts only is the same as calling it at every count, but for a belt that runs
        backwards: that is noticed only when it is told.
        """
        return self._news.next_encoder if self._news.has_next_encoder else None

    def plan(self) -> tuple[int | None, int | None]:
        """The counts at which an interrupt would open the gate next, and close it; None: it would not."""
        told = (ctypes.c_uint32 * 4)()
        self._core.host_plan(self._host, told)
        return (told[1] if told[0] else None), (told[3] if told[2] else None)

    # Inputs

    def on_bytes(self, data: bytes, now_us: int) -> None:
        """Bytes from the host."""
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            self._core.host_on_bytes(self._host, piece, len(piece), now_us & U32)
            self._take_news()

    def on_eye(self, encoder: int, now_us: int) -> None:
        """The photo-eye breaks at this count."""
        self._core.host_on_eye(self._host, encoder & U32, now_us & U32)
        self._take_news()

    def on_encoder(self, encoder: int, now_us: int) -> None:
        """The belt stands at this count: everything due up to it happens."""
        self._core.host_on_encoder(self._host, encoder & U32, now_us & U32)
        self._take_news()

    def on_confirm(self, encoder: int, now_us: int) -> None:
        """The sensor behind the gate sees a part. It belongs to the oldest pulse that waits for one."""
        self._core.host_on_confirm(self._host, encoder & U32, now_us & U32)
        self._take_news()

    def on_inputs(self, now_us: int, *, bin_ok: bool, air_ok: bool) -> None:
        """Levels of the wired inputs, about each millisecond; believed when they have stood for 10 ms."""
        faults = (0 if bin_ok else Flags.BIN_FULL) | (0 if air_ok else Flags.AIR_LOW)
        self._core.host_on_inputs(self._host, int(faults), now_us & U32)
        self._take_news()

    def on_time(self, now_us: int) -> None:
        """Called about each millisecond: watchdog, solenoid on-time, resending."""
        self._core.host_on_time(self._host, now_us & U32)
        self._take_news()

    # Registers, with Modbus

    def read(self, address: int, count: int) -> tuple[int, list[int]]:
        """As its RTU server would: exception code, 0 when good, and the registers."""
        room = ctypes.create_string_buffer(BLOCK_BYTES)
        code = self._core.host_map_read(self._host, address, count, room)
        return code, [int.from_bytes(room.raw[2 * at : 2 * at + 2]) for at in range(count)] if not code else []

    def write(self, address: int, values: Sequence[int], now_us: int) -> int:
        """The same: exception code, 0 when good."""
        words = b"".join(value.to_bytes(2) for value in values)
        code = int(self._core.host_map_write(self._host, address, len(values), words, now_us & U32))
        self._take_news()
        return code

    def _tallies(self) -> core.Tallies:
        told = core.Tallies()
        self._core.host_tallies(self._host, ctypes.byref(told))
        return told

    def _take_news(self) -> None:
        news = self._news
        if news.byte_count:
            self._out += ctypes.string_at(self._bytes_at, news.byte_count)
            news.byte_count = 0
        if news.edge_count:
            rows = (core.Edge * news.edge_count).from_address(self._edges_at)
            self.edges += [GateEdge(bool(row.is_on), row.part_id, row.encoder, row.time_us) for row in rows]
            news.edge_count = 0
        if news.event_count:
            self._tell_events()

    def _tell_events(self) -> None:
        rows = (core.Event * self._news.event_count).from_address(self._events_at)
        self._news.event_count = 0
        if self._observer is None:
            return
        events = [
            EventMsg(self.boot_id, row.seq, EventKind(row.kind), row.part_id, row.encoder, row.time_us) for row in rows
        ]
        for event in events:
            self._observer(event)
