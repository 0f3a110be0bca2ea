"""The Modbus register map as one table. Host, firmware, and what a PLC programmer reads all come from it.

Three blocks of 16-bit registers, at the same addresses whoever is the server. A 32-bit value has its high word first.
Each block begins and ends with the same map id, so that a block read or written at a wrong address, too short, or half
done can be told from a whole one. `MAP_VERSION` is a hash of the table: two sides made from different tables refuse to
work together.

    python -m firmware_bridge.modbus.registers_text     writes REGISTERS.md and mcu/registers.h again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag
from hashlib import sha256
from typing import Any, ClassVar, Self

MAP_ID = 0x4552  # "ER"
RING = 8  # entries: at 20 parts/s, what passes while one poll is lost and its timeout is waited out twice


class BoxStatus(IntFlag):
    """What the box says of itself, in `status`."""

    READY = 1  # works with this PLC
    BUSY = 2  # parts are on their way
    FAULT = 4  # does not work with this PLC; the text is in the box's log
    ARMED = 8  # act on my verdicts; 0 also takes back a trip
    HOLD = 16  # asks for a controlled hold of the feed; how to stop is the PLC's business, and parts are seen through


class PlcControl(IntFlag):
    """What the PLC says of itself, in `control`."""

    ENABLE = 1  # acts on verdicts; only after ARMED was seen at 0 and then at 1
    TRIPPED = 2  # fell into the safe state, or just started; cleared by ARMED = 0
    HEALTHY = 4  # the healthy output is on
    GATE = 8  # the gate is on
    BIN_FULL = 16
    AIR_LOW = 32
    ENCODER_LOST = 64  # parts pass, counts do not
    BELT_REVERSED = 128


class VerdictCode(IntEnum):
    NONE = 0
    ACCEPT = 1
    REJECT = 2
    UNSURE = 3  # treat like no verdict


class ResultAnswer(IntEnum):
    """What became of the result of `result_ack`. 0 from a PLC that does not say; it is taken as STORED."""

    NOT_TOLD = 0
    STORED = 1
    DUP = 2
    LATE = 3
    UNKNOWN = 4
    CONFLICT = 5


class OutcomeCode(IntEnum):
    """Entries of the outcome ring, numbered as the events of the controller protocol."""

    PASSED = 2  # accept verdict, at the gate
    FIRED = 3  # reject verdict, at the gate
    DEFAULTED = 4  # no verdict in time: the default was done at the gate
    CONFIRMED = 5  # the sensor behind the gate saw the rejected part
    UNCONFIRMED = 6  # it did not
    WATCHDOG = 7  # the box fell silent: tripped; no part
    OVERFLOW = 8  # more parts between eye and gate than the table holds: tripped, the part gets the default
    INPUT = 9  # one of the upper four control bits came or went; part_id_lo holds them as they were after it


class Reason(IntEnum):
    """`reason` of the box block: why the verdict is what it is. For display, so not part of the map's version."""

    NOT_TOLD = 0
    MODEL = 1  # the model looked at the part
    RULE = 2  # a fixed rule of the station
    HUMAN = 3  # a person decided
    DEADLINE = 4  # nobody decided in time; the station's safe action
    NO_FRAME = 5  # no picture of the part; the safe action
    OVERLOAD = 6  # parts came faster than they are judged; the safe action
    ENGINE_FAULT = 7  # the model failed; the safe action
    LINK_FAULT = 8  # the box was away when the part passed; the safe action
    INVALID_IMAGE = 9  # the picture is dark, unsharp, blank or an old one; the safe action


class MapError(ValueError):
    """A block that is not whole, or not ours. The text says what was seen."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. kind: u16, u32, or ring (`RING` entries of the columns named)."""

    name: str
    kind: str
    unit: str
    meaning: str
    columns: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Registers."""
        return {"u16": 1, "u32": 2}.get(self.kind) or RING * len(self.columns)


HEAD = Row("map_id", "u16", "", f"constant {MAP_ID} (0x{MAP_ID:04X})")
VERSION = Row("map_version", "u16", "", "constant of this table; another one is refused")
TAIL = Row("map_id_end", "u16", "", "the same constant; if the two differ the block is dropped and counted")

BOX_ROWS = (
    HEAD,
    VERSION,
    Row("heartbeat", "u16", "100 ms", "+1 each 100 ms; still for the watchdog time: divert all parts"),
    Row("status", "u16", "bits", "see box status"),
    Row("result_seq", "u16", "", "a change is a new result; never 0 once there was one"),
    Row("part_id", "u32", "", "the part that the result is for"),
    Row("verdict", "u16", "", "0 none, 1 accept, 2 reject, 3 unsure"),
    Row("reason", "u16", "", "cause of the verdict, see reason; for display"),
    Row("confidence", "u16", "1/1000", "score of the verdict, 0..1000"),
    Row("ack_echo", "u16", "", "`result_ack` of the PLC as the box saw it last"),
    Row("host_echo", "u16", "", "`trigger_seq` of the PLC up to which the box has taken the triggers"),
    TAIL,
)
PLC_ROWS = (
    HEAD,
    Row("heartbeat", "u16", "", "changes at least each 100 ms; still for 5 periods: the box takes the PLC for dead"),
    Row("control", "u16", "bits", "see PLC control"),
    Row("trigger_seq", "u16", "", "+1 for each part at the photo-eye"),
    Row("part_id", "u32", "", "of the newest trigger; +1 with each trigger, from 1 after a start"),
    Row("encoder", "u32", "counts", "latched at the eye for the newest trigger; runs freely and wraps, never reset"),
    Row("result_ack", "u16", "", "the `result_seq` that was taken last"),
    Row("result_answer", "u16", "", "what became of it, see result answer; 0 when not told"),
    Row("map_version", "u16", "", VERSION.meaning),
    Row("boot_id", "u16", "", "another value after each start of the PLC; parts and sequences then begin anew"),
    Row("encoder_now", "u32", "counts", "where the belt is; relates counts to the time of the box"),
    Row("outcome_seq", "u16", "", "+1 for each entry written to the outcome ring"),
    Row("triggers", "ring", "", "trigger number s is entry s mod 8", ("part_id_lo", "encoder_lo")),
    Row("outcomes", "ring", "", "outcome number s is entry s mod 8", ("part_id_lo", "outcome", "encoder_lo")),
    TAIL,
)
SETUP_ROWS = (
    HEAD,
    VERSION,
    Row("decide_counts", "u16", "counts", "eye to the point where a missing verdict becomes the default"),
    Row("fire_counts", "u16", "counts", "eye to gate"),
    Row("pulse_counts", "u16", "counts", "length of the pulse"),
    Row("confirm_counts", "u16", "counts", "gate to the end of the confirm window; 0 without a sensor"),
    Row("watchdog_ms", "u16", "ms", "box heartbeat still for so long: trip"),
    Row("max_on_ms", "u16", "ms", "the solenoid is never on for longer"),
    Row("default_verdict", "u16", "", "1 accept, 2 reject: for parts without a verdict"),
    Row("debounce_counts", "u16", "counts", "a break of the eye closer than this to the last part is the same part"),
    Row("inputs_mask", "u16", "bits", "which of BIN_FULL (16) and AIR_LOW (32) are wired; the others are never set"),
    TAIL,
)


class Block:
    """One block of the map: where it is and how its registers are laid out."""

    def __init__(self, name: str, base: int, direction: str, rows: Sequence[Row]) -> None:
        self.name, self.base, self.direction, self.rows = name, base, direction, tuple(rows)
        self.offsets: dict[str, int] = {}
        at = 0
        for row in self.rows:
            self.offsets[row.name] = at
            at += row.size
        self.size = at

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.base + self.size

    def address(self, name: str) -> int:
        """Address of a register, from 0."""
        return self.base + self.offsets[name]

    def pack(self, values: Mapping[str, Any]) -> list[int]:
        """Registers of the whole block. Ids and version are filled in. Raises ValueError on a value out of range."""
        known = {"map_id": MAP_ID, "map_version": MAP_VERSION, "map_id_end": MAP_ID, **values}
        return [word for row in self.rows for word in _pack_row(row, known[row.name])]

    def unpack(self, words: Sequence[int]) -> dict[str, Any]:
        """Values by name. Raises MapError unless it is a whole block of this map."""
        if len(words) != self.size:
            raise MapError(f"the {self.name} block has {self.size} registers, not {len(words)}")
        first, last = words[0], words[-1]
        if first != MAP_ID or last != MAP_ID:
            raise MapError(f"the {self.name} block begins with {first:#06x} and ends with {last:#06x}, "
                           f"both must be {MAP_ID:#06x}")  # fmt: skip
        return {row.name: _unpack_row(row, words[self.offsets[row.name] :][: row.size]) for row in self.rows}


def _pack_row(row: Row, value: Any) -> list[int]:
    if row.kind == "ring":
        words = [int(cell) for entry in value for cell in entry]
        if len(words) != row.size:
            raise ValueError(f"{row.name} has {row.size} registers, not {len(words)}")
        return [_word(row, word) for word in words]
    value = int(value)
    if row.kind == "u32":
        if not 0 <= value <= 0xFFFF_FFFF:
            raise ValueError(f"{row.name}={value} is out of range")
        return [value >> 16, value & 0xFFFF]
    return [_word(row, value)]


def _word(row: Row, value: int) -> int:
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"{row.name}={value} is out of range 0..65535")
    return value


def _unpack_row(row: Row, words: Sequence[int]) -> Any:
    if row.kind == "ring":
        width = len(row.columns)
        return tuple(tuple(words[at : at + width]) for at in range(0, row.size, width))
    return words[0] if row.kind == "u16" else words[0] << 16 | words[1]


BOX = Block("box", 0, "box -> PLC", BOX_ROWS)
PLC = Block("PLC", 100, "PLC -> box", PLC_ROWS)
SETUP = Block("setup", 200, "box -> PLC, our firmware only", SETUP_ROWS)
BLOCKS = (BOX, PLC, SETUP)
_CODES: tuple[type[IntEnum | IntFlag], ...] = (BoxStatus, PlcControl, VerdictCode, ResultAnswer, OutcomeCode)


def describe() -> str:
    """The table in words, for the version: any change of it is another map. Meanings and units are prose."""
    rows = [
        f"{block.name}@{block.base + block.offsets[row.name]}:{row.name}:{row.kind}:{','.join(row.columns)}"
        for block in BLOCKS
        for row in block.rows
    ]
    codes = [f"{kind.__name__}:{','.join(f'{code.name}={code.value}' for code in kind)}" for kind in _CODES]
    return ";".join([str(MAP_ID), str(RING), *rows, *codes])


MAP_VERSION = int.from_bytes(sha256(describe().encode()).digest()[:2], "little") or 1

RingPair = tuple[int, ...]
EMPTY_TRIGGERS: tuple[RingPair, ...] = ((0, 0),) * RING
EMPTY_OUTCOMES: tuple[RingPair, ...] = ((0, 0, 0),) * RING


class _Fields:
    """Packing for the three dataclasses below, whose fields are the rows of their block less ids."""

    __slots__ = ()
    BLOCK: ClassVar[Block]

    def pack(self) -> list[int]:
        return self.BLOCK.pack({field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def unpack(cls, words: Sequence[int]) -> Self:
        """Raises MapError unless it is a whole block."""
        values = cls.BLOCK.unpack(words)
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class BoxBlock(_Fields):
    BLOCK = BOX
    heartbeat: int = 0
    status: int = 0
    result_seq: int = 0
    part_id: int = 0
    verdict: int = 0
    reason: int = 0
    confidence: int = 0
    ack_echo: int = 0
    host_echo: int = 0
    map_version: int = MAP_VERSION


@dataclass(frozen=True, slots=True)
class PlcBlock(_Fields):
    BLOCK = PLC
    heartbeat: int = 0
    control: int = 0
    trigger_seq: int = 0
    part_id: int = 0
    encoder: int = 0
    result_ack: int = 0
    result_answer: int = 0
    boot_id: int = 0
    encoder_now: int = 0
    outcome_seq: int = 0
    triggers: tuple[RingPair, ...] = EMPTY_TRIGGERS
    outcomes: tuple[RingPair, ...] = EMPTY_OUTCOMES
    map_version: int = MAP_VERSION


@dataclass(frozen=True, slots=True)
class SetupBlock(_Fields):
    BLOCK = SETUP
    decide_counts: int
    fire_counts: int
    pulse_counts: int
    confirm_counts: int
    watchdog_ms: int
    max_on_ms: int
    default_verdict: int
    debounce_counts: int
    inputs_mask: int
    map_version: int = MAP_VERSION
