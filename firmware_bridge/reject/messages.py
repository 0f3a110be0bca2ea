"""The messages of the reject controller, as one table. Host and firmware both come from it, so they cannot drift.

A payload is one kind byte and the fields, little-endian, packed. `PROTOCOL_VERSION` is a hash of the table: names,
kinds, field layouts and every code. HELLO and HELLO_R keep their first three bytes (kind, version) for ever, so that
two that differ can still tell each other so.

Kinds below 80h go to the controller, from 80h on they come from it. Codes of verdicts are eight bits apart, so that
no small damage, on the wire or in RAM, turns a reject into an accept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag
from hashlib import sha256
from typing import Annotated, ClassVar, Self, get_args, get_type_hints

from firmware_bridge.reject.frames import MAX_PAYLOAD, crc16


class WireError(Exception):
    """A payload with a good CRC that is none of our messages."""


class Verdict(IntEnum):
    NONE = 0x00
    ACCEPT = 0x5A
    REJECT = 0xA5


class Answer(IntEnum):
    """What became of a VERDICT. The first one wins; all others are answered with what is in force."""

    STORED = 0
    DUP = 1  # the same verdict again
    LATE = 2  # the default is in force already
    UNKNOWN = 3  # no such part was ever numbered
    CONFLICT = 4  # another verdict came first
    NOT_ARMED = 5


class EventKind(IntEnum):
    TRIGGER = 1  # a part broke the photo-eye; encoder and time latched there
    PASSED = 2  # accept verdict, at the gate
    FIRED = 3  # reject verdict, at the gate, pulse begun
    DEFAULTED = 4  # no verdict in time, or it lay in the open gate of another: not what was wanted, but what was done
    CONFIRMED = 5  # the sensor behind the gate saw the rejected part
    UNCONFIRMED = 6  # it did not, inside the confirm window
    WATCHDOG = 7  # the host fell silent: tripped
    OVERFLOW = 8  # more parts between eye and gate than the table holds: tripped, the part is swept out untracked
    INPUT = 9  # one of the blocking flags came or went; `part_id` holds the flags after it


class Status(IntEnum):
    """How CONFIG and ARM were taken."""

    OK = 0
    ARMED = 1  # CONFIG only while disarmed
    BAD_VALUE = 2
    NOT_CONFIGURED = 3
    BLOCKED = 4  # ARM while a blocking flag is set: see `flags`


class Flags(IntFlag):
    """State of the controller. The upper four block: a reject could not be carried out, or parts not followed."""

    ARMED = 1
    TRIPPED = 2
    HEALTHY = 4
    GATE = 8
    BIN_FULL = 16  # wired input
    AIR_LOW = 32  # wired input
    ENCODER_LOST = 64  # parts break the eye and no count comes between them
    BELT_REVERSED = 128  # until the belt is back at its furthest point


BLOCKING = Flags.BIN_FULL | Flags.AIR_LOW | Flags.ENCODER_LOST | Flags.BELT_REVERSED
WIRED = Flags.BIN_FULL | Flags.AIR_LOW


_U8 = Annotated[int, "B"]
_U16 = Annotated[int, "H"]
_U32 = Annotated[int, "I"]
_Bool = Annotated[bool, "?"]
_Verdict = Annotated[Verdict, "B"]
_Answer = Annotated[Answer, "B"]
_Event = Annotated[EventKind, "B"]
_Status = Annotated[Status, "B"]
_Flags = Annotated[Flags, "B"]


@dataclass(frozen=True, slots=True)
class Message:
    """One row of the table: packs itself and is unpacked from a payload."""

    KIND: ClassVar[int]

    def pack(self) -> bytes:
        layout, _ = _LAYOUTS[type(self)]
        return layout.pack(self.KIND, *(getattr(self, field.name) for field in fields(self)))

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Raises WireError when length or a code is not of this message."""
        layout, types = _LAYOUTS[cls]
        if len(payload) != layout.size:
            raise WireError(f"{cls.__name__} has {layout.size} bytes, not {len(payload)}")
        try:
            return cls(*(make(raw) for make, raw in zip(types, layout.unpack(payload)[1:], strict=True)))
        except ValueError as err:
            raise WireError(f"{cls.__name__}: {err}") from err


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Who is there? Also relates clocks: the answer echoes `nonce`."""

    KIND: ClassVar[int] = 0x01
    version: _U16
    nonce: _U16


@dataclass(frozen=True, slots=True)
class Config(Message):
    """How the machine is built. Taken only while disarmed; the controller checks the ranges again."""

    KIND: ClassVar[int] = 0x02
    boot_id: _U16
    decide_counts: _U16  # eye to the point where a missing verdict becomes the default
    fire_counts: _U16  # eye to gate
    pulse_counts: _U16
    confirm_counts: _U16  # gate to the end of the confirm window; 0 without a sensor
    watchdog_ms: _U16
    max_on_ms: _U16  # the solenoid is never on for longer, also on a belt that stands
    default: _Verdict
    inputs: _U8 = 0  # which of Flags.BIN_FULL and Flags.AIR_LOW are wired; the others are never set
    debounce_counts: _U16 = 0  # a break of the eye closer than this to the last part is the same part

    def digest(self) -> int:
        """CRC of the values, which HELLO_R reports, so that a restarted host need not disarm a running line."""
        return crc16(self.pack()[3:])


@dataclass(frozen=True, slots=True)
class Arm(Message):
    KIND: ClassVar[int] = 0x03
    boot_id: _U16
    on: _Bool


@dataclass(frozen=True, slots=True)
class Beat(Message):
    """The host lives. Answered even when `boot_id` is another's, so that a reset is noticed at the next beat."""

    KIND: ClassVar[int] = 0x04
    boot_id: _U16
    nonce: _U16
    hold: _Bool = False  # a level: asks for a controlled hold of the feed; parts on the belt are seen through


@dataclass(frozen=True, slots=True)
class VerdictMsg(Message):
    KIND: ClassVar[int] = 0x05
    boot_id: _U16
    part_id: _U32
    verdict: _Verdict


@dataclass(frozen=True, slots=True)
class EvAck(Message):
    """All events up to and with `seq` have arrived."""

    KIND: ClassVar[int] = 0x06
    boot_id: _U16
    seq: _U16


@dataclass(frozen=True, slots=True)
class HelloR(Message):
    KIND: ClassVar[int] = 0x81
    version: _U16
    boot_id: _U16
    nonce: _U16
    time_us: _U32
    next_part: _U32
    oldest_event: _U16  # sequence of the oldest event still held; the same as `next_event` when none is
    next_event: _U16
    config_digest: _U16  # 0 before the first CONFIG
    flags: _Flags


@dataclass(frozen=True, slots=True)
class Done(Message):
    """Answer to CONFIG and ARM."""

    KIND: ClassVar[int] = 0x82
    boot_id: _U16
    request: _U8  # its kind
    status: _Status
    flags: _Flags  # after it


@dataclass(frozen=True, slots=True)
class BeatR(Message):
    KIND: ClassVar[int] = 0x84
    boot_id: _U16
    nonce: _U16
    time_us: _U32
    encoder: _U32
    next_part: _U32
    oldest_event: _U16
    next_event: _U16
    flags: _Flags


@dataclass(frozen=True, slots=True)
class VerdictR(Message):
    KIND: ClassVar[int] = 0x85
    boot_id: _U16
    part_id: _U32
    answer: _Answer
    in_force: _Verdict  # NONE when the part is not held any more


@dataclass(frozen=True, slots=True)
class EventMsg(Message):
    """Held and sent again until acknowledged, or overwritten: then the host sees the hole in `seq`."""

    KIND: ClassVar[int] = 0x86
    boot_id: _U16
    seq: _U16
    event: _Event
    part_id: _U32
    encoder: _U32
    time_us: _U32


TABLE: tuple[type[Message], ...] = (
    Hello, Config, Arm, Beat, VerdictMsg, EvAck, HelloR, Done, BeatR, VerdictR, EventMsg,
)  # fmt: skip
CODES: tuple[type[IntEnum | IntFlag], ...] = (Verdict, Answer, EventKind, Status, Flags)


def _layout(cls: type[Message]) -> tuple[struct.Struct, tuple[type, ...]]:
    hints = get_type_hints(cls, include_extras=True)
    columns = [get_args(hints[field.name]) for field in fields(cls)]
    return struct.Struct("<B" + "".join(code for _, code in columns)), tuple(kind for kind, _ in columns)


_LAYOUTS = {cls: _layout(cls) for cls in TABLE}
_BY_KIND = {cls.KIND: cls for cls in TABLE}


def layout_of(cls: type[Message]) -> struct.Struct:
    """How `cls` is packed: the kind byte, then its fields in order."""
    return _LAYOUTS[cls][0]


def _describe() -> str:
    """The table in words, for the version: any change of it is another protocol."""
    rows = [
        f"{cls.__name__}:{cls.KIND}:{_LAYOUTS[cls][0].format}:{','.join(field.name for field in fields(cls))}"
        for cls in TABLE
    ]
    codes = [f"{kind.__name__}:{','.join(f'{code.name}={code.value}' for code in kind)}" for kind in CODES]
    return ";".join(rows + codes)


PROTOCOL_VERSION = int.from_bytes(sha256(_describe().encode()).digest()[:2], "little") or 1

if max(layout.size for layout, _ in _LAYOUTS.values()) > MAX_PAYLOAD:  # at import, where a new field is noticed
    raise AssertionError("a message is longer than a payload")


def unpack(payload: bytes) -> Message:
    """The message in a payload. Raises WireError when it is none of the table."""
    cls = _BY_KIND.get(payload[0]) if payload else None
    if cls is None:
        raise WireError(f"unknown message {payload[:1].hex() or '(empty)'}")
    return cls.unpack(payload)


def hello_version(payload: bytes) -> int | None:
    """The protocol version in a HELLO or HELLO_R of any release, None for other messages."""
    if len(payload) < 3 or payload[0] not in (Hello.KIND, HelloR.KIND):
        return None
    return int.from_bytes(payload[1:3], "little")
