"""The register map: one table, three forms of it, and blocks that survive the way there and back."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.modbus import registers, registers_text
from firmware_bridge.modbus.registers import BLOCKS, BOX, MAP_ID, PLC, RING, BoxBlock, MapError, PlcBlock, SetupBlock
from firmware_bridge.reject import messages

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFF_FFFF)


def blocks():
    def one(cls):
        rows = {row.name: row for row in cls.BLOCK.rows}
        return st.builds(cls, **{field.name: values_of(rows[field.name]) for field in fields(cls)})

    def values_of(row):
        if row.kind == "ring":
            return st.tuples(*[st.tuples(*[U16] * len(row.columns))] * RING)
        return U16 if row.kind == "u16" else U32

    return st.one_of(*map(one, (BoxBlock, PlcBlock, SetupBlock)))


@settings(deadline=None)
@given(blocks())
def test_a_block_comes_back_as_it_went(block):
    words = block.pack()
    assert len(words) == block.BLOCK.size
    assert all(0 <= word <= 0xFFFF for word in words)
    assert type(block).unpack(words) == block


@settings(deadline=None)
@given(blocks(), U16, st.booleans())
def test_a_block_whose_ids_differ_is_told(block, other, is_first):
    words = block.pack()
    words[0 if is_first else -1] = other
    if other == MAP_ID:
        assert type(block).unpack(words) == block
        return
    with pytest.raises(MapError, match="must be 0x4552"):
        type(block).unpack(words)


@settings(deadline=None)
@given(st.lists(U16, max_size=130))
def test_any_words_are_a_block_or_an_error(words):
    for cls in (BoxBlock, PlcBlock, SetupBlock):
        try:
            assert cls.unpack(words).pack() == words
        except MapError as err:
            assert str(err)


@pytest.mark.parametrize("value", [-1, 0x1_0000])
def test_a_value_that_fits_no_register_is_an_error(value):
    with pytest.raises(ValueError, match=f"result_seq={value}"):
        BoxBlock(result_seq=value).pack()
    with pytest.raises(ValueError, match="part_id"):
        BoxBlock(part_id=value << 16).pack()


def test_blocks_do_not_overlap_and_fit_one_request():
    taken = [address for block in BLOCKS for address in range(block.base, block.base + block.size)]
    assert len(taken) == len(set(taken))
    assert all(block.size <= 123 for block in BLOCKS)


def test_the_box_block_is_laid_out_as_agreed():
    names = [row.name for row in BOX.rows]
    assert names == [
        "map_id", "map_version", "heartbeat", "status", "result_seq", "part_id", "verdict", "reason", "confidence",
        "ack_echo", "host_echo", "map_id_end",
    ]  # fmt: skip
    assert [row.name for row in PLC.rows][:7] == [
        "map_id", "heartbeat", "control", "trigger_seq", "part_id", "encoder", "result_ack",
    ]  # fmt: skip
    assert BoxBlock(part_id=0x1234_5678).pack()[5:7] == [0x1234, 0x5678]


def test_codes_are_those_of_the_controller_protocol():
    for code in registers.OutcomeCode:
        assert messages.EventKind[code.name] == code
    for code in messages.Answer:
        if code is not messages.Answer.NOT_ARMED:
            assert registers.ResultAnswer[code.name] == code + 1
    for flag in registers.PlcControl:
        assert messages.Flags["ARMED" if flag.name == "ENABLE" else flag.name] == flag


@pytest.mark.parametrize(("path", "text"), [(registers_text.PAGE, registers_text.page),
                                            (registers_text.HEADER, registers_text.header)])  # fmt: skip
def test_page_and_header_are_those_of_the_table(path, text):
    assert path.read_text(encoding="utf-8") == text(), "run: python -m firmware_bridge.modbus.registers_text"


def test_the_version_follows_the_layout_and_not_the_prose(monkeypatch):
    described = registers.describe()
    monkeypatch.setattr(PLC, "base", 101)
    assert registers.describe() != described
    monkeypatch.undo()
    monkeypatch.setattr(BOX, "rows", (*BOX.rows[:-1], registers.Row("map_id_end", "u16", "", "other words")))
    assert registers.describe() == described


def test_a_faster_line_carries_more_parts():
    speeds = [registers_text.parts_per_s(baud) for baud in registers_text.BAUDS]
    assert speeds == sorted(speeds) and 4 < speeds[0] < 7 and 40 < speeds[-1] < 60
