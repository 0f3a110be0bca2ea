"""The register map in the two forms that are not Python: a page for people and a header for the firmware."""

from __future__ import annotations

import inspect
import re
from enum import IntEnum, IntFlag
from pathlib import Path

from firmware_bridge.modbus.link import cycle_ns
from firmware_bridge.modbus.registers import (
    BLOCKS,
    MAP_ID,
    MAP_VERSION,
    PLC,
    RING,
    Block,
    BoxStatus,
    OutcomeCode,
    PlcControl,
    Reason,
    ResultAnswer,
    Row,
    VerdictCode,
)
from firmware_bridge.modbus.rtu import Line

FOLDER = Path(__file__).parents[1]
PAGE = FOLDER / "REGISTERS.md"
HEADER = FOLDER / "mcu" / "registers.h"
BAUDS = (9_600, 19_200, 38_400, 57_600, 115_200)
THINKING_MS = (0, 5, 20)  # what a PLC takes to answer: none, a short and a long scan
_CODES: dict[str, tuple[str, type[IntEnum | IntFlag]]] = {
    "BOX_STATUS": ("Box status", BoxStatus),
    "CONTROL": ("PLC control", PlcControl),
    "VERDICT_CODE": ("Verdict", VerdictCode),
    "RESULT": ("Result answer", ResultAnswer),
    "OUTCOME": ("Outcome", OutcomeCode),
}
_RULES = """\
# Registers

Modbus RTU, holding registers, addresses from 0 (a tool that counts from 1 or from 40001 adds 1 or 40001). The same
addresses whether the box polls (client) or is polled (server). 32-bit values have the high word first. Generated from
`firmware_bridge/modbus/registers.py` by `python -m firmware_bridge.modbus.registers_text`.

Map id **{map_id}** (0x{map_id:04X}), map version **{version}** (0x{version:04X}). A side that finds another version
does not work with the other one and says so.

## Rules

1. Everything is a level. An edge is a change of a sequence; writing or reading a block again does nothing.
2. A block whose first and last register differ from the map id is dropped and counted. Who cannot write a block in one
   request first writes 0 to its first register, then the rest, and the map id into the first register last.
3. A trigger: write `part_id`, `encoder` and the ring entry, then add 1 to `trigger_seq`. Part ids go up by one.
4. A result: when `result_seq` changes, take `verdict` for `part_id` unless the part has one, then copy `result_seq` to
   `result_ack`. The next result comes after that. The first verdict for a part wins. Verdict 0 is no result; copy the
   sequence all the same.
5. An outcome: write the ring entry, then add 1 to `outcome_seq`.
6. After a start the PLC sets another `boot_id`, all sequences to 0, TRIPPED, and takes the first `result_seq` that it
   sees as done. TRIPPED goes when ARMED is read as 0. ENABLE goes on when ARMED is 1 and TRIPPED is 0.
7. Box heartbeat still for the watchdog time: ENABLE off, TRIPPED on, every part without an outcome gets the default.
   PLC heartbeat still for {still} ms or {cycles} polls, whichever is longer: the box takes the PLC for dead.
8. No answer in time: the box stays silent for one more full timeout and throws away what it hears, because RTU cannot
   tell a late reply from the next one. A write that failed is made again with what is true by then.

As server the box answers functions 3 and 4 alike, writes by 6 and 16, exceptions 1 (function), 2 (address) and 3
(value). Unit 0 (broadcast) is obeyed and not answered. Our firmware as server answers 6 (busy) when the setup is
written while it is armed.

"""


def page() -> str:
    """REGISTERS.md."""
    parts = [_RULES.format(map_id=MAP_ID, version=MAP_VERSION, still=500, cycles=4)]
    parts += [_block_text(block) for block in BLOCKS]
    parts += [_rings_text(), "## Codes\n\n"]
    parts += [_code_text(title, kind) for title, kind in (*_CODES.values(), ("Reason", Reason))]
    parts.append(_speed_text())
    return "".join(parts)


def _block_text(block: Block) -> str:
    lines = [f"## {block.name[0].upper()}{block.name[1:]} block ({block.direction})\n",
             "| address | name | type | unit | meaning |", "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in block.rows:
        first = block.address(row.name)
        where = str(first) if row.size == 1 else f"{first}-{first + row.size - 1}"
        lines.append(f"| {where} | {row.name} | {_kind_text(row)} | {row.unit} | {row.meaning} |")
    return "\n".join(lines) + "\n\n"


def _kind_text(row: Row) -> str:
    return f"{RING} x ({', '.join(row.columns)})" if row.kind == "ring" else row.kind


def _rings_text() -> str:
    first = PLC.address("triggers")
    return (
        f"Rings: several triggers or outcomes may fall between two polls. Entry of sequence s is number s mod {RING}; "
        f"trigger 13 is at {first + 13 % RING * 2} and {first + 13 % RING * 2 + 1}. `part_id_lo` and `encoder_lo` are "
        "the low words; the box finds the high words from `part_id`, `encoder` and `encoder_now`, so two parts in a "
        "row must be less than 32768 counts apart to be stamped right when both are new in one poll. A PLC that leaves "
        f"the rings at 0 works as long as at most one trigger falls between two polls. Of more than {RING} at once the "
        "oldest are told as missed, and get the default.\n\n"
    )


def _code_text(title: str, kind: type[IntEnum | IntFlag]) -> str:
    remarks = dict(re.findall(r"^\s+(\w+) = \d+  # (.*)$", inspect.getsource(kind), re.MULTILINE))
    head = f"**{title}**" + (" (bits)" if issubclass(kind, IntFlag) else "")
    rows = [f"| {code.value} | {code.name} | {remarks.get(code.name, '')} |" for code in kind]
    return "\n".join([head, "", "| value | name | meaning |", "| --- | --- | --- |", *rows]) + "\n\n"


def _speed_text() -> str:
    lines = [
        "## Speed\n",
        "A verdict takes one write of the box block and one read of the PLC block, which also carries the next "
        "triggers. Results per second, by what the PLC takes to answer; 8N1, parity costs a tenth. A watchdog shorter "
        "than four cycles trips on a line that loses a frame now and then.\n",
        "| baud | cycle on the wire | " + " | ".join(f"{ms} ms" for ms in THINKING_MS) + " |",
        "| --- " * (2 + len(THINKING_MS)) + "|",
    ]
    for baud in BAUDS:
        cells = [f"{parts_per_s(baud, ms):.0f} /s" for ms in THINKING_MS]
        lines.append(f"| {baud} | {cycle_ns(Line(baud)) / 1e6:.0f} ms | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parts_per_s(baud: int, thinking_ms: float = 0.0, parity: str = "none") -> float:
    """Results per second that the line carries when the PLC takes so long to answer a request."""
    return 1e9 / cycle_ns(Line(baud, parity), round(thinking_ms * 1e6))


def header() -> str:
    """mcu/registers.h."""
    lines = [
        "/* Generated by `python -m firmware_bridge.modbus.registers_text`. Do not edit. */",
        "#ifndef REGISTERS_H",
        "#define REGISTERS_H",
        "",
        _define("MAP_ID", MAP_ID),
        _define("MAP_VERSION", MAP_VERSION),
        _define("MAP_RING", RING),
    ]
    for block in BLOCKS:
        name = block.name.upper()
        lines += [
            "",
            f"/* {block.direction} */",
            _define(f"{name}_BASE", block.base),
            _define(f"{name}_SIZE", block.size),
        ]
        lines += [_define(f"{name}_{row.name.upper()}", block.offsets[row.name]) for row in block.rows]
    for prefix, (title, kind) in _CODES.items():
        lines += ["", f"/* {title} */", *(_define(f"{prefix}_{code.name}", code.value) for code in kind)]
    return "\n".join([*lines, "", "#endif", ""])


def _define(name: str, value: int) -> str:
    return f"#define {name} {value}u"


def write_files() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    HEADER.write_text(header(), encoding="utf-8")


if __name__ == "__main__":
    write_files()
