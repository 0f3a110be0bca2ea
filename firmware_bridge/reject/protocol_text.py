"""The parts of PROTOCOL.md that follow from the code: messages, codes, times, a frame byte by byte.

    python -m firmware_bridge.reject.protocol_text     writes them into PROTOCOL.md again

They stand between `<!-- NAME -->` and `<!-- end NAME -->`; everything else in the page is prose, written by hand.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from enum import IntEnum, IntFlag
from pathlib import Path

from firmware_bridge.reject import times
from firmware_bridge.reject.frames import CRC_BYTES, MAX_PAYLOAD, crc16, encode_frame
from firmware_bridge.reject.messages import CODES, PROTOCOL_VERSION, TABLE, Message, Verdict, VerdictMsg, layout_of

PAGE = Path(__file__).parents[1] / "PROTOCOL.md"
TYPES = {"B": "u8", "H": "u16", "I": "u32", "?": "bool"}
CONTROLLER_KINDS = 0x80
EXAMPLE = VerdictMsg(0x1234, 7, Verdict.REJECT)


def sections() -> dict[str, str]:
    """Name of a generated part -> its text."""
    return {
        "version": f"This release speaks protocol version **{PROTOCOL_VERSION:04x}** (hexadecimal).",
        "messages": _messages(),
        "codes": "\n\n".join(_code(kind) for kind in CODES),
        "times": _times(),
        "example": _example(),
    }


def page(text: str) -> str:
    """`text` with its generated parts made anew. Raises ValueError when one is missing."""
    for name, body in sections().items():
        begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"PROTOCOL.md has no part {name}")
        text = text[: text.index(begin)] + f"{begin}\n{body}\n" + text[text.index(end) :]
    return text


def write_page() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _messages() -> str:
    lines = [
        "| kind | message | direction | bytes | fields after the kind byte | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cls in TABLE:
        way = "controller -> box" if cls.KIND >= CONTROLLER_KINDS else "box -> controller"
        lines.append(
            f"| {cls.KIND:02x} | {cls.__name__} | {way} | {layout_of(cls).size} | {_fields(cls)} | {_doc(cls)} |"
        )
    return "\n".join(lines)


def _fields(cls: type[Message]) -> str:
    codes = layout_of(cls).format[2:]  # past "<B"
    return ", ".join(f"{field.name} {TYPES[code]}" for field, code in zip(fields(cls), codes, strict=True))


def _doc(cls: type[Message]) -> str:
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    return "" if text.startswith(f"{cls.__name__}(") else " ".join(text.split())  # dataclass writes one of its own


def _code(kind: type[IntEnum | IntFlag]) -> str:
    remarks = dict(re.findall(r"^\s+(\w+) = \w+  # (.*)$", inspect.getsource(kind), re.MULTILINE))
    head = [
        f"**{kind.__name__}**" + (" (bits)" if issubclass(kind, IntFlag) else ""),
        "",
        "| value | name | |",
        "| --- | --- | --- |",
    ]
    return "\n".join([*head, *(f"| {code.value:#04x} | {code.name} | {remarks.get(code.name, '')} |" for code in kind)])


def _times() -> str:
    rows = (
        (times.ASK_AGAIN_NS, "HELLO, CONFIG and ARM are sent again, until answered"),
        (times.REFUSED_AGAIN_NS, "the same, to a controller of another version or that refuses the values"),
        (times.BEAT_NS, "from one BEAT to the next; a quarter of the watchdog time when that is shorter"),
        (times.BEAT_AGAIN_NS, "a BEAT without an answer is followed by the next"),
        (times.VERDICT_AGAIN_NS, "a VERDICT without an answer is sent again"),
        (times.LOST_AFTER_NS, "silence of the controller after which the box begins at HELLO again"),
    )
    lines = ["| ms | |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {ns // times.MS} | {text} |" for ns, text in rows)])


def _example() -> str:
    payload, frame = EXAMPLE.pack(), encode_frame(EXAMPLE.pack())
    return "\n".join(
        [
            "```",
            f"{EXAMPLE}",
            f"payload   {payload.hex(' ')}",
            f"crc       {crc16(payload):04x}, sent low byte first",
            f"frame     {frame.hex(' ')}",
            "```",
            f"Payloads have at most {MAX_PAYLOAD} bytes, so a frame has at most {1 + MAX_PAYLOAD + CRC_BYTES + 1}.",
        ]
    )


if __name__ == "__main__":
    write_page()
