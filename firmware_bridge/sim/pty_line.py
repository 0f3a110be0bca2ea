"""A belt with its controller behind a real pty, paced to the wall clock: `python -m firmware_bridge.sim.pty_line`.

The pty stands in for a serial adapter: it has a name that a host opens (`--link`), is pulled and comes back under the
same name. Acts of the script, and lines on stdin (`reset`, `speed -0.5`, `stuck 1`, `air 0`, `cable out`, ...), are the
bad days. The truth goes to a file, a JSON line each, written before the bytes that tell the host of it. Ends by itself
behind the last part, or when stdin ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from firmware_bridge.sim.avr import AvrBoard, build_shim
from firmware_bridge.sim.belt import Act, BeltFaults, Fact, Laid
from firmware_bridge.sim.board import Board
from firmware_bridge.sim.controller import READ_BYTES, PtyLine
from firmware_bridge.sim.host_board import HostBoard
from firmware_bridge.sim.wire import WireFaults

PRIORITY = 2  # above the host's threads, as hardware is
LINGER_S = 0.7  # after the last part, so that the host hears of it
FIRST_COUNT, TIME_US = 2**32 - 5000, 2**32 - 2_000_000  # both counters of the controller wrap in mid-run


def lay(plan: dict[str, Any]) -> Laid:
    """The parts of a plan: parts, counts_per_s, seed, spacing_counts, pairs."""
    return Laid(
        plan["parts"],
        plan["counts_per_s"],
        tuple(plan.get("spacing_counts", (110, 190))),
        lead_counts=300,
        pairs=plan.get("pairs", False),
        seed=plan.get("seed", 1),
    )


def run(line: PtyLine, seconds: float) -> float:
    """Until the belt is over, stdin has ended or time is up; how long it took."""
    _run_first()
    began = now = time.monotonic()
    over_at: float | None = None
    orders = bytearray()
    stdin = sys.stdin.fileno()
    while now - began <= seconds and not (over_at and now - over_at > LINGER_S):
        if line.step(others=[stdin]):
            data = os.read(stdin, READ_BYTES)
            if not data:
                break
            orders += data
            obey(line, orders)
        now = time.monotonic()
        over_at = over_at or (now if line.belt.is_over else None)
    return now - began


def obey(line: PtyLine, orders: bytearray) -> None:
    while (end := orders.find(b"\n")) >= 0:
        verb, _, value = orders[:end].decode(errors="replace").strip().partition(" ")
        del orders[: end + 1]
        line.belt.do(Act(0, 0, verb, value if verb == "cable" else float(value or 0)))


def _run_first() -> None:
    """The simulated hardware does not wait for what it is there to try."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        pass  # not allowed; then a busy machine slows the belt down


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", choices=("host", "avr"), default="avr")
    parser.add_argument("--elf", type=Path, help="the image, for the AVR core")
    parser.add_argument("--modbus", action="store_true", help="the AVR core's strap for Modbus RTU")
    parser.add_argument("--link", type=Path, required=True, help="name under which a host finds the serial port")
    parser.add_argument("--log", type=Path, required=True, help="where the truth is written")
    parser.add_argument("--plan", default="{}", help="JSON: parts, counts_per_s, fire_counts, seed, bounces, pairs")
    parser.add_argument("--script", default="[]", help='JSON: [[at_part, after_ms, "verb", value], ...]')
    parser.add_argument("--wire", default="{}", help="JSON: byte_errors, delay_ms, is_bytewise")
    parser.add_argument("--seconds", type=float, default=3600.0)
    options = parser.parse_args()
    plan = {"parts": 10**9, "counts_per_s": 2000, "fire_counts": 1000, **json.loads(options.plan)}
    board: Board
    if options.core == "host":
        board = HostBoard(encoder=FIRST_COUNT, time_us=TIME_US)
    elif options.elf is None:
        parser.error("--core avr wants --elf")
    else:
        board = AvrBoard(options.elf, build_shim(options.elf.parent), speaks_modbus=options.modbus)
    log = options.log.open("a", buffering=1)  # a line at a time, for who reads along

    def write(facts: list[Fact]) -> None:
        for fact in facts:
            log.write(json.dumps({**fact, "ns": time.monotonic_ns()}) + "\n")

    line = PtyLine(
        board,
        lay(plan),
        lambda: int(plan["fire_counts"]),
        script=[Act(*act) for act in json.loads(options.script)],
        faults=BeltFaults(bounce=float(plan.get("bounces", False)), is_ragged=True),
        wire=WireFaults(**json.loads(options.wire)),
        seed=plan.get("seed", 1),
        link=options.link,
        on_facts=write,
    )
    try:
        wall_s = run(line, options.seconds)
        write([{"ev": "end", "us": round(board.now_us), "wall_s": round(wall_s, 2),
                "cpu_s": round(time.process_time(), 2), "damaged": line.damaged, "dropped": line.adapter.dropped,
                "starved": line.starved}])  # fmt: skip
    finally:
        line.close()
        log.close()


if __name__ == "__main__":
    main()
