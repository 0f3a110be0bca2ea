"""The reject path through every bad day, with the real ATmega328P image under simavr: its pins, its UART, its cycles.

In simulated time, where the CPU runs faster than the real one and nothing depends on how busy the machine is; and by
the wall clock, with real ptys and processes, for a few seconds each.
"""

from __future__ import annotations

import pytest
from reject_faults import BY_NAME, FAULTS
from reject_image import build_image
from reject_runs import VirtualRun, real_row

from firmware_bridge.sim.avr import AvrBoard, build_shim, why_missing
from firmware_bridge.sim.board import Input

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=why_missing() or "")

PARTS = 150
PULSE_US = 250.0  # a count at 4 kHz
REAL = {"clean wire": 40, "1 % byte errors": 50, "host SIGKILL, restart": 80, "controller reset": 60,
        "cable pull, return": 90}  # fmt: skip


@pytest.fixture(scope="module")
def elf(tmp_path_factory):
    image = build_image(tmp_path_factory.mktemp("image"))
    build_shim(image.parent)
    return image


def check(row, parts):
    assert row["parts"] == parts
    assert (row["missed"], row["false"], row["stray"], row["slipped"]) == (0, 0, 0, 0), row["why"]
    assert row["pulse_error_counts"] <= 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_part_goes_wrong_on_a_bad_day(fault, elf):
    row = VirtualRun("avr", fault, 4000, PARTS, 5, elf).run()
    check(row, PARTS)
    assert fault.shows(row), row


def test_the_gate_moves_within_a_count_of_its_edge_at_2_khz(elf):
    row = VirtualRun("avr", BY_NAME["clean wire"], 2000, PARTS, 5, elf).run()
    check(row, PARTS)
    assert row["pulse_error_counts"] == 0 and row["pulse_us"] < PULSE_US


@pytest.mark.parametrize(("name", "parts"), REAL.items(), ids=REAL)
def test_no_part_goes_wrong_between_real_processes(name, parts, elf):
    row = real_row("avr", BY_NAME[name].sooner(4), 4000, parts, 5, elf)
    check(row, parts)
    assert row["passed"] > 0 and row["fired"] > 0


def test_the_board_takes_and_sends_bytes_at_the_uarts_pace(elf):
    board = AvrBoard(elf, build_shim(elf.parent))
    try:
        assert board.put(b"\0" * 500) == 500
        board.run(20_000)
        heard = board.notes()[-1].heard
        assert 220 <= heard <= 231  # 11.5 bytes a millisecond
        board.level(Input.AIR, False)
        board.run(1000)
        assert board.lost == 0
    finally:
        board.close()
