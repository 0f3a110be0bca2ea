"""Writes `messages.h` from the message table, so that host and firmware cannot drift.

Run `python -m firmware_bridge.mcu.generate` after any change of `firmware_bridge/reject/messages.py`, and commit the
header; a test compares.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import fields
from pathlib import Path

from firmware_bridge.reject.frames import MAX_PAYLOAD
from firmware_bridge.reject.messages import CODES, PROTOCOL_VERSION, TABLE, Message, layout_of

HEADER = Path(__file__).with_name("messages.h")
_TOP = """\
/* Generated from firmware_bridge/reject/messages.py by `python -m firmware_bridge.mcu.generate`: do not edit. */
#ifndef MESSAGES_H
#define MESSAGES_H
"""


def header() -> str:
    """The text of `messages.h`: codes, and for each message its kind, its size and the places of its fields."""
    lines = [_TOP, f"#define PROTOCOL_VERSION 0x{PROTOCOL_VERSION:04X}u", f"#define MAX_PAYLOAD {MAX_PAYLOAD}u"]
    for codes in CODES:
        prefix = {"EventKind": "EVENT", "Flags": "FLAG"}.get(codes.__name__, _upper(codes.__name__))
        lines += ["", *(f"#define {prefix}_{code.name} 0x{code.value:02X}u" for code in codes)]
    for cls in TABLE:
        lines += ["", *_message(cls)]
    return "\n".join([*lines, "", "#endif", ""])


def _message(cls: type[Message]) -> list[str]:
    name = "MSG_" + _upper(cls.__name__.removesuffix("Msg"))
    form = layout_of(cls).format
    lines = [f"#define {name} 0x{cls.KIND:02X}u", f"#define {name}_SIZE {struct.calcsize(form)}u"]
    for at, field in enumerate(fields(cls), start=2):  # behind "<" and the kind
        lines.append(f"#define {name}_AT_{field.name.upper()} {struct.calcsize(form[:at])}u")
    return lines


def _upper(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def main() -> int:
    HEADER.write_text(header(), encoding="ascii")
    sys.stdout.write(f"wrote {HEADER} (protocol {PROTOCOL_VERSION:04x})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
