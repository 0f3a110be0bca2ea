"""A PLC on pymodbus that the box polls: peer_pymodbus.py DEVICE UNIT PARTS. Follows REGISTERS.md; runs until killed.

Prints a line of JSON when all parts are settled.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from firmware_bridge.modbus.registers import (
    BOX,
    PLC,
    RING,
    BoxBlock,
    BoxStatus,
    MapError,
    OutcomeCode,
    PlcBlock,
    PlcControl,
)

EACH_S, TRAVEL_S = 0.06, 0.25
COUNTS_PER_S = 5000


class Program:
    """The block as a list of registers, kept up to date at each access."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.words = PlcBlock(boot_id=77, control=PlcControl.TRIPPED).pack()
        self.born: dict[int, float] = {}
        self.verdicts: dict[int, int] = {}
        self.settled: dict[int, int] = {}
        self.next_s = 0.0
        self.has_result = False

    def put(self, name: str, value: int) -> None:
        at = PLC.offsets[name]
        if name in ("part_id", "encoder", "encoder_now"):
            self.words[at : at + 2] = [value >> 16 & 0xFFFF, value & 0xFFFF]
        else:
            self.words[at] = value & 0xFFFF

    def get(self, name: str) -> int:
        return self.words[PLC.offsets[name]]

    def ring(self, name: str, seq_name: str, entry: list[int]) -> None:
        seq = self.get(seq_name) + 1
        at = PLC.offsets[name] + len(entry) * (seq % RING)
        self.words[at : at + len(entry)] = [word & 0xFFFF for word in entry]
        self.put(seq_name, seq)

    def scan(self) -> None:
        now = time.monotonic()
        count = int(now * COUNTS_PER_S)
        self.put("heartbeat", int(now * 20))
        self.put("encoder_now", count)
        if self.get("control") & PlcControl.ENABLE and len(self.born) < self.parts and now >= self.next_s:
            part = len(self.born) + 1
            self.born[part], self.next_s = now, now + EACH_S
            self.put("part_id", part)
            self.put("encoder", count)
            self.ring("triggers", "trigger_seq", [part, count])
        for part, born in self.born.items():
            if part not in self.settled and now - born >= TRAVEL_S:
                self.settled[part] = {1: OutcomeCode.PASSED, 2: OutcomeCode.FIRED}.get(
                    self.verdicts.get(part, 0), OutcomeCode.DEFAULTED
                )
                self.ring("outcomes", "outcome_seq", [part, self.settled[part], count])
                if len(self.settled) == self.parts:
                    print(json.dumps({"outcomes": list(self.settled.values())}), flush=True)

    def take_box(self, words: list[int]) -> None:
        try:
            box = BoxBlock.unpack(words)
        except MapError:
            return
        if not box.status & BoxStatus.ARMED:
            self.put("control", 0)
        elif not self.get("control") & PlcControl.TRIPPED:
            self.put("control", PlcControl.ENABLE)
        if not self.has_result or box.result_seq != self.get("result_ack"):
            if self.has_result and box.verdict and box.part_id not in self.settled:
                self.verdicts.setdefault(box.part_id, box.verdict)
            self.has_result = True
            self.put("result_ack", box.result_seq)


async def main(device: str, unit: int, parts: int) -> None:
    program = Program(parts)

    async def touch(function, first, address, count, registers, values):
        if values is not None and address == BOX.base:
            program.take_box(values)
        program.scan()
        registers[PLC.base - first : PLC.base - first + PLC.size] = program.words

    box = SimData(BOX.base, count=BOX.size, datatype=DataType.REGISTERS)
    plc = SimData(PLC.base, count=PLC.size, datatype=DataType.REGISTERS)
    sim = SimDevice(unit, [box, plc], action=touch)
    server = ModbusSerialServer([sim], framer=FramerType.RTU, port=device, baudrate=115_200)
    print("{}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
