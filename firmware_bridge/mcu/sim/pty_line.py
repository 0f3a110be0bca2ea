"""A belt with its controller behind a real pty, paced to the wall clock: `python -m firmware_bridge.mcu.sim.pty_line`.

The pty stands in for a serial adapter: it has a name that a host opens (`--link`), is pulled and comes back under the
same name. Acts of the script, and lines on stdin (`reset`, `speed -0.5`, `stuck 1`, `air 0`, `cable out`, ...), are the
bad days. The truth goes to a file, a JSON line each, written before the bytes that tell the host of it. Ends by itself
behind the last part, or when stdin ends.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import pty
import select
import sys
import time
import tty
from collections.abc import Iterable
from pathlib import Path

from firmware_bridge.mcu.sim.belt import Act, Belt, BeltPlan, Fact
from firmware_bridge.mcu.sim.board import Board
from firmware_bridge.mcu.sim.host_board import HostBoard
from firmware_bridge.mcu.sim.wire import Wire, WireFaults
from firmware_bridge.sim.avr import AvrBoard, build_shim

STEP_US = 1000.0
BYTEWISE_STEP_US = 200.0  # one byte each: 5000 a second, half of what 115200 baud brings
BEHIND_US = 5000.0  # catch up in pieces: the host is heard in between
STARVED_US = 20_000.0  # woken later than that, time on the belt has stood still: a controller is not slowed by the box
PRIORITY = 2  # above the host's threads, as hardware is
READ_BYTES = 4096
LINGER_S = 0.7  # after the last part, so that the host hears of it


class SerialAdapter:
    """A pty under a name of its own, which can be pulled."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._master = self._slave = -1
        self.dropped = 0
        self.plug()

    def plug(self) -> None:
        if self._master >= 0:
            return
        self._master, self._slave = pty.openpty()  # the slave stays open here: no error while no host is there
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        fresh = self._link.with_name(self._link.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._link)

    def pull(self) -> None:
        if self._master < 0:
            return
        self._link.unlink(missing_ok=True)
        for fd in (self._slave, self._master):
            os.close(fd)
        self._master = self._slave = -1

    def wait(self, timeout_s: float, others: Iterable[int]) -> list[int]:
        """Readable ones of `others`; returns early when the host has written."""
        fds = [*others] + ([self._master] if self._master >= 0 else [])
        readable, _, _ = select.select(fds, [], [], max(0.0, timeout_s))
        return [fd for fd in readable if fd != self._master]

    def read(self, most: int) -> bytes:
        try:
            return os.read(self._master, most) if self._master >= 0 else b""
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.EIO):
                return b""
            raise

    def write(self, data: bytes) -> None:
        """A UART does not wait for a host that does not read."""
        if self._master < 0:
            return
        try:
            self.dropped += len(data) - os.write(self._master, data)
        except OSError as err:
            if err.errno not in (errno.EAGAIN, errno.EIO):
                raise
            self.dropped += len(data)


class PtyLine:
    def __init__(self, board: Board, plan: BeltPlan, script: list[Act], faults: WireFaults, link: Path, log: Path):
        self.belt = Belt(board, plan, script, self._act)
        self.adapter = SerialAdapter(link)
        self._wires = (Wire(faults, plan.seed + 1), Wire(faults, plan.seed + 2))
        self._step_us = BYTEWISE_STEP_US if faults.is_bytewise else STEP_US
        self._most = 1 if faults.is_bytewise else READ_BYTES
        self._tail: list[bytes] = []
        self.starved = 0
        self._log = log.open("a", buffering=1)  # a line at a time, for who reads along

    def run(self, seconds: float) -> None:
        _run_first()
        board, began, zero_us = self.belt.board, time.monotonic(), self.belt.board.now_us
        over_at: float | None = None
        orders = bytearray()
        inputs = [sys.stdin.fileno()]
        while True:
            behind_us = (time.monotonic() - began) * 1e6 - (board.now_us - zero_us)
            if behind_us < self._step_us:
                for fd in self.adapter.wait((self._step_us - behind_us) / 1e6, inputs):
                    data = os.read(fd, READ_BYTES)
                    if not data:
                        return
                    orders += data
                    self._obey(orders)
                behind_us = (time.monotonic() - began) * 1e6 - (board.now_us - zero_us)
            if behind_us > STARVED_US:
                zero_us -= behind_us - BEHIND_US
                self.starved += 1
            self._turn(min(max(behind_us, 0.0), BEHIND_US))
            now = time.monotonic()
            over_at = over_at or (now if self.belt.is_over else None)
            if now - began > seconds or (over_at and now - over_at > LINGER_S):
                break
        self._write({"ev": "end", "us": round(board.now_us), "wall_s": round(now - began, 2),
                     "cpu_s": round(time.process_time(), 2), "damaged": sum(wire.damaged for wire in self._wires),
                     "dropped": self.adapter.dropped, "starved": self.starved})  # fmt: skip

    def close(self) -> None:
        self.adapter.pull()
        self.belt.board.close()
        self._log.close()

    def _turn(self, us: float) -> None:
        to_controller, to_host = self._wires
        board = self.belt.board
        to_controller.send(self.adapter.read(self._most), board.now_us)
        for piece in to_controller.receive(board.now_us):
            self.belt.hear(piece)
        for fact in self.belt.run(us):
            self._write(fact)
        to_host.send(board.take(), board.now_us)
        self._tail += to_host.receive(board.now_us)
        pieces, self._tail = (self._tail[:1], self._tail[1:]) if self._most == 1 else (self._tail, [])
        for piece in pieces:
            self.adapter.write(piece)

    def _act(self, act: Act) -> None:
        if act.verb != "cable":
            return
        for wire in self._wires:
            wire.unplug() if act.value == "out" else wire.plug()
        if act.value == "out":
            self._tail.clear()
            self.adapter.pull()
        else:
            self.adapter.plug()

    def _obey(self, orders: bytearray) -> None:
        while (end := orders.find(b"\n")) >= 0:
            verb, _, value = orders[:end].decode(errors="replace").strip().partition(" ")
            del orders[: end + 1]
            self.belt.do(Act(0, 0, verb, value if verb == "cable" else float(value or 0)))

    def _write(self, fact: Fact) -> None:
        self._log.write(json.dumps({**fact, "ns": time.monotonic_ns()}) + "\n")


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
    plan = BeltPlan(**{"parts": 10**9, "counts_per_s": 2000, "fire_counts": 1000, **json.loads(options.plan)})
    script = [Act(*act) for act in json.loads(options.script)]
    board: Board
    if options.core == "host":
        board = HostBoard(encoder=2**32 - 5000, time_us=2**32 - 2_000_000)  # both counters wrap in mid-run
    elif options.elf is None:
        parser.error("--core avr wants --elf")
    else:
        board = AvrBoard(options.elf, build_shim(options.elf.parent), speaks_modbus=options.modbus)
    line = PtyLine(board, plan, script, WireFaults(**json.loads(options.wire)), options.link, options.log)
    try:
        line.run(options.seconds)
    finally:
        line.close()


if __name__ == "__main__":
    main()
