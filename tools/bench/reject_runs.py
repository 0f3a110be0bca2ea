"""Runs one injected fault: in simulated time inside this process, or by the wall clock with a real pty and process.

A run in simulated time is the same bytes and the same code (link, controller) without scheduler and kernel: it takes a
fraction of the time and is the same each time. What stops, kills or unplugs a process is only real by the wall clock.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reject_faults import BY_NAME, Fault
from reject_host import Brain, Note, make_setup
from reject_judge import Geometry, Judge

from firmware_bridge.reject.link import Link
from firmware_bridge.reject.messages import WIRED
from firmware_bridge.sim.avr import AvrBoard, build_shim
from firmware_bridge.sim.belt import Act, Belt, BeltFaults, Fact
from firmware_bridge.sim.board import Board
from firmware_bridge.sim.host_board import HostBoard
from firmware_bridge.sim.pty_line import FIRST_COUNT, TIME_US, lay
from firmware_bridge.sim.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
HOST = Path(__file__).with_name("reject_host.py")
SETUP: dict[str, int] = {"decide_counts": 900, "fire_counts": 1000, "pulse_counts": 40, "confirm_counts": 80,
                         "watchdog_ms": 500, "max_on_ms": 1000, "debounce_counts": 4,
                         "inputs": int(WIRED)}  # fmt: skip
GEOMETRY = Geometry(SETUP["decide_counts"], SETUP["fire_counts"], SETUP["pulse_counts"])
STEP_US = 1000.0
START_NS = 10**12
HOST_RATE = 1.0002  # the host's clock against the controller's
PTY_BYTES = 4096  # what a kernel holds for a host that does not read
QUIET_US = 700_000  # after the last part
MAX_US = 300e6
POLL_S = 0.02


def plan_of(fault: Fault, counts_per_s: int, parts: int, seed: int) -> dict[str, Any]:
    return {"parts": parts, "counts_per_s": counts_per_s, "fire_counts": SETUP["fire_counts"], "seed": seed,
            "bounces": fault.bounces, "pairs": fault.pairs}  # fmt: skip


def make_board(core: str, elf: Path | None) -> Board:
    if core == "host":
        return HostBoard(encoder=FIRST_COUNT, time_us=TIME_US, boot_id=100)
    assert elf is not None
    return AvrBoard(elf, build_shim(elf.parent))


class VirtualRun:
    """Belt, wires, link and host on one simulated clock."""

    def __init__(self, core: str, fault: Fault, counts_per_s: int, parts: int, seed: int, elf: Path | None) -> None:
        self.fault, self.seed = fault, seed
        self.board = make_board(core, elf)
        self.belt = Belt(
            self.board,
            lay(plan_of(fault, counts_per_s, parts, seed)),
            lambda: SETUP["fire_counts"],
            script=fault.script,
            faults=BeltFaults(bounce=float(fault.bounces), is_ragged=True),
            seed=seed,
            on_act=self._act,
        )
        self.to_controller, self.to_host = Wire(fault.wire, seed + 1), Wire(fault.wire, seed + 2)
        self.truth: list[Fact] = []
        self.notes: list[Note] = []
        self._waiting = bytearray()  # for a host that does not read
        self._is_stopped = False
        self._new_host(None)

    def run(self) -> dict[str, Any]:
        over_us = None
        try:
            while over_us is None or self.board.now_us < over_us + QUIET_US:
                self._step()
                if over_us is None and self.belt.is_over:
                    over_us = self.board.now_us
                if self.board.now_us > MAX_US:
                    raise TimeoutError(f"{self.fault.name}: the belt never got through its parts")
            return Judge(self.truth, self.notes, GEOMETRY, self.seed).verdict()
        finally:
            self.board.close()

    @property
    def now_ns(self) -> int:
        return START_NS + int(self.board.now_us * 1000 * HOST_RATE)

    def _new_host(self, resume: tuple[int, int] | None) -> None:
        self.link: Link | None = Link(make_setup(SETUP), resume=resume)
        self.brain = Brain(self.seed, self.notes.append)
        self.brain.inspector.see({**fact, "ns": fact["ns"]} for fact in self.truth if fact["ev"] == "part")
        self.link.set_armed(True, self.now_ns)
        if self.to_host.is_plugged:
            self.link.opened(self.now_ns)

    def _step(self) -> None:
        now_us = self.board.now_us
        for piece in self.to_controller.receive(now_us):
            self.belt.hear(piece)
        facts = [{**fact, "ns": START_NS + int(fact["us"] * 1000 * HOST_RATE)} for fact in self.belt.run(STEP_US)]
        self.truth += facts
        self.to_host.send(self.board.take(), self.board.now_us)
        pieces = self.to_host.receive(self.board.now_us)
        self.brain.inspector.see(fact for fact in facts if fact["ev"] == "part")
        if self.link is None or self._is_stopped:
            self._waiting += b"".join(pieces)[: PTY_BYTES - len(self._waiting)]
            return
        self._host_turn(self.link, [bytes(self._waiting), *pieces] if self._waiting else pieces)
        self._waiting.clear()

    def _host_turn(self, link: Link, pieces: list[bytes]) -> None:
        now_ns = self.now_ns
        for piece in pieces:
            link.feed(piece, now_ns)
        for event in link.take_events():
            self.brain.hear(event, now_ns)
        for boot_id, part_id, reject in self.brain.due(now_ns):
            link.submit(boot_id, part_id, reject, now_ns)
        link.tick(now_ns)
        self.to_controller.send(link.take_output(), self.board.now_us)

    def _act(self, act: Act) -> None:
        match act.verb, act.value:
            case "cable", "out":
                self.to_controller.unplug()
                self.to_host.unplug()
                if self.link is not None:
                    self.link.closed("pulled", self.now_ns)
            case "cable", "in":
                self.to_controller.plug()
                self.to_host.plug()
                if self.link is not None:
                    self.link.opened(self.now_ns)
            case "host", "stop":
                self._is_stopped = True
            case "host", "cont":
                self._is_stopped = False
            case "host", "kill":
                self.link = None
            case "host", "start":
                self._waiting.clear()  # opening a port throws away what waited
                known = [note for note in self.notes if note["ev"] == "trigger"]
                self._new_host((known[-1]["boot"], known[-1]["part"]) if known else None)


class RealRun:
    """A belt process on a pty and a host process, watched by `poll` until the belt is empty."""

    def __init__(self, core: str, fault: Fault, counts_per_s: int, parts: int, seed: int, elf: Path | None) -> None:
        self.fault, self.seed = fault, seed
        self._folder = tempfile.TemporaryDirectory(prefix="reject-")
        folder = Path(self._folder.name)
        self.link, self._truth, self._notes = folder / "port", folder / "truth", folder / "notes"
        self._errors = (folder / "errors").open("w+")
        self._truth.touch()
        self._watched = self._truth.open()
        self._rest = ""
        self.host: subprocess.Popen[bytes] | None = None
        plan = plan_of(fault, counts_per_s, parts, seed)
        script = [[act.at_part, act.after_ms, act.verb, act.value] for act in fault.script]
        limit_s = 15 + parts * 150 / counts_per_s * 1.5
        words = ["--core", core, "--link", self.link, "--log", self._truth, "--seconds", limit_s,
                 "--plan", json.dumps(plan), "--script", json.dumps(script), "--wire", json.dumps(asdict(fault.wire)),
                 *(["--elf", elf] if elf else [])]  # fmt: skip
        self.line = self._start("-m", "firmware_bridge.sim.pty_line", *words, stdin=subprocess.PIPE)

    def poll(self) -> dict[str, Any] | None:
        """The judge's row when the run is over. Raises RuntimeError with what a process said when one failed."""
        if self.host is None and self.link.exists():
            self._start_host()
        self._watch()
        if self.line.poll() is None:
            return None
        self._end_host()
        self._watch()
        if self.line.returncode or self.host is None:
            raise RuntimeError(f"{self.fault.name}: the line ended with {self.line.returncode}: {self._said()}")
        truth = [json.loads(line) for line in self._truth.read_text().splitlines()]
        notes = [json.loads(line) for line in self._notes.read_text().splitlines()]
        row = Judge(truth, notes, GEOMETRY, self.seed).verdict()
        end = truth[-1]
        row |= {"cpu_share": round(end["cpu_s"] / end["wall_s"], 3), "starved": end["starved"]}
        return row

    def close(self) -> None:
        self._end_host()
        if self.line.poll() is None:
            self.line.kill()
        self.line.wait()
        if self.line.stdin:
            self.line.stdin.close()
        self._watched.close()
        self._errors.close()
        self._folder.cleanup()

    def keep(self, folder: Path) -> None:
        """Copy the truth and the notes, for who looks for a cause."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._truth, self._notes):
            (folder / path.name).write_bytes(path.read_bytes() if path.exists() else b"")

    def _start(self, *words: object, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, *map(str, words)], stdin=stdin, stdout=subprocess.DEVNULL,
                                stderr=self._errors, env=env, cwd=ROOT)  # fmt: skip

    def _start_host(self) -> None:
        self.host = self._start(HOST, self.link, self._truth, self._notes, self.seed, json.dumps(SETUP))

    def _end_host(self) -> None:
        host = self.host
        if host is None or host.poll() is not None:
            return
        host.send_signal(signal.SIGCONT)
        host.terminate()
        try:
            host.wait(5)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()

    def _watch(self) -> None:
        """Do to the host what the belt's script says."""
        *lines, self._rest = (self._rest + self._watched.read()).split("\n")
        for line in lines:
            fact = json.loads(line)
            if fact["ev"] == "did" and fact["verb"] == "host":
                self._to_host(fact["value"])

    def _to_host(self, order: str) -> None:
        host = self.host
        if host is None:
            return
        match order:
            case "stop":
                host.send_signal(signal.SIGSTOP)
            case "cont":
                host.send_signal(signal.SIGCONT)
            case "kill":
                host.kill()
                host.wait()
            case "start":
                self._start_host()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:]


def real_row(core: str, fault: Fault, counts_per_s: int, parts: int, seed: int, elf: Path | None) -> dict[str, Any]:
    """One run by the wall clock, waited for."""
    run = RealRun(core, fault, counts_per_s, parts, seed, elf)
    try:
        while (row := run.poll()) is None:
            time.sleep(POLL_S)
        return row
    finally:
        run.close()


def virtual_row(core: str, name: str, counts_per_s: int, parts: int, seed: int, elf: Path | None) -> dict[str, Any]:
    return VirtualRun(core, BY_NAME[name], counts_per_s, parts, seed, elf).run()
