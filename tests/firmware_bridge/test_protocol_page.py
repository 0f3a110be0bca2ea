"""The pages for people say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firmware_bridge.modbus.registers import BOX, MAP_ID, PLC, RING
from firmware_bridge.reject import protocol_text
from firmware_bridge.reject.frames import cobs_decode, crc16
from firmware_bridge.reject.messages import CODES, PROTOCOL_VERSION, TABLE, Flags, unpack

HOUSE = Path(protocol_text.__file__).parents[1]
PROTOCOL = (HOUSE / "PROTOCOL.md").read_text(encoding="utf-8")
WIRING = (HOUSE / "WIRING.md").read_text(encoding="utf-8")


def test_the_generated_parts_are_those_of_the_code():
    assert protocol_text.page(PROTOCOL) == PROTOCOL, "run: python -m firmware_bridge.reject.protocol_text"


def test_every_message_code_and_the_version_are_in_it():
    assert f"**{PROTOCOL_VERSION:04x}**" in PROTOCOL
    for cls in TABLE:
        assert f"| {cls.KIND:02x} | {cls.__name__} |" in PROTOCOL
    for kind in CODES:
        for code in kind:
            assert f"| {code.value:#04x} | {code.name} |" in PROTOCOL


def test_the_frame_on_the_page_is_the_message_above_it():
    frame = bytes.fromhex(re.search(r"^frame +([0-9a-f ]+)$", PROTOCOL, re.MULTILINE).group(1))
    assert frame[-1] == 0 and 0 not in frame[:-1]
    body = cobs_decode(frame[:-1])
    assert crc16(body[:-2]) == int.from_bytes(body[-2:], "little")
    assert str(unpack(body[:-2])) in PROTOCOL


def test_a_page_without_a_part_is_refused():
    with pytest.raises(ValueError, match="no part"):
        protocol_text.page(PROTOCOL.replace("<!-- times -->", ""))


def test_every_pin_of_the_firmware_is_wired_on_the_page():
    head = (HOUSE / "mcu" / "avr_main.c").read_text(encoding="utf-8").split("*/")[0]
    pins = set(re.findall(r"\bP[BCD]\d\b", head))
    assert len(pins) >= 13
    listed = set(re.findall(r"\bP[BCD]\d\b", "\n".join(row for row in WIRING.splitlines() if row.startswith("|"))))
    assert listed == pins


def test_numbers_of_the_plc_program_are_those_of_the_map():
    program = WIRING.split("```iecst")[1].split("```")[0]
    assert set(re.findall(r"map_id\w* (?::=|=) (\d+)", program)) == {str(MAP_ID)}
    assert f"MOD {RING}" in program and f"registers 0-{BOX.size - 1}" in WIRING
    assert f"{PLC.base}-{PLC.base + PLC.size - 1}" in WIRING and f"write {PLC.size} registers from {PLC.base}" in WIRING
    assert f"read {BOX.size} from {BOX.base}" in WIRING
    for block, fields in (("box", BOX), ("plc", PLC)):
        for name in re.findall(rf"\b{block}\.([a-z_]+)", program):
            assert name in fields.offsets, name


def test_every_blocking_flag_is_in_the_wiring():
    for flag in (Flags.BIN_FULL, Flags.AIR_LOW, Flags.ENCODER_LOST, Flags.BELT_REVERSED):
        assert flag.name in WIRING
