"""The host of a run: the product's port thread and link, and a stand-in for camera and model that knows each part.

As a process of its own, so that it can be stopped, killed and started again:

    reject_host.py PORT TRUTH NOTES SEED SETUP

It reads the belt's truth as a camera sees parts, answers every trigger with the verdict after 5 to 60 ms, and writes
down what it heard, a JSON line each, whole lines at a time: a killed host leaves what it knew. Ends on SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reject_inspector import Inspector, is_defective

from firmware_bridge.port import BridgePort
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link
from firmware_bridge.reject.link_events import (
    ControllerReset,
    EventsLost,
    GateConfirmed,
    LinkEvent,
    LinkLost,
    LinkUp,
    PartsMissed,
    Settled,
    Triggered,
    Tripped,
    VerdictAnswered,
)
from firmware_bridge.reject.messages import Flags
from firmware_bridge.serial_device import PortError

Note = dict[str, Any]


def make_setup(values: Mapping[str, int]) -> GateSetup:
    """How the machine of the runs is built, as plain numbers: they travel to the host's process."""
    fixed: dict[str, Any] = {**values, "inputs": Flags(values["inputs"])}
    return GateSetup(**fixed)


def note_of(event: LinkEvent) -> Note:
    """An event of the link as a line of the notes."""
    match event:
        case Triggered():
            return {"ev": "trigger", "boot": event.boot_id, "part": event.part_id, "encoder": event.encoder}
        case VerdictAnswered():
            return {"ev": "answer", "boot": event.boot_id, "part": event.part_id, "answer": event.answer.name,
                    "ms": round(event.round_trip_ns / 1e6, 3)}  # fmt: skip
        case Settled():
            return {"ev": "settled", "boot": event.boot_id, "part": event.part_id, "outcome": str(event.outcome)}
        case GateConfirmed():
            return {"ev": "confirm", "boot": event.boot_id, "part": event.part_id, "confirmed": event.is_confirmed}
        case PartsMissed():
            return {"ev": "parts_missed", "boot": event.boot_id, "first": event.first, "last": event.last}
        case EventsLost():
            return {"ev": "events_lost", "count": event.count}
        case Tripped():
            return {"ev": "tripped", "reason": event.reason}
        case ControllerReset():
            return {"ev": "reset", "boot": event.new_boot_id}
        case LinkUp():
            return {"ev": "up", "boot": event.boot_id}
        case LinkLost():
            return {"ev": "lost", "reason": event.reason}
        case _:
            return {"ev": "other", "text": repr(event)}


class Brain:
    """Turns triggers into verdicts that are due later. No clock: times come from the caller."""

    def __init__(self, seed: int, write: Callable[[Note], None]) -> None:
        self.inspector = Inspector(seed)
        self._write = write
        self._due: list[tuple[int, int, int, bool]] = []

    def hear(self, event: LinkEvent, now_ns: int) -> None:
        note = note_of(event)
        if isinstance(event, Triggered):
            part = self.inspector.part_of(event.boot_id, event.encoder, event.at_ns)
            note["index"] = None if part is None else part.index
            if part is not None:
                is_bad = is_defective(self.inspector.seed, part.index)
                heappush(self._due, (now_ns + self.inspector.think_ns(), event.boot_id, event.part_id, is_bad))
        self._write(note)

    def due(self, now_ns: int) -> list[tuple[int, int, bool]]:
        """Verdicts to be sent by now: boot id, part id, whether to reject."""
        ready = []
        while self._due and self._due[0][0] <= now_ns:
            ready.append(heappop(self._due)[1:])
        return ready

    def next_due_ns(self) -> int | None:
        return self._due[0][0] if self._due else None


def run_promptly() -> None:
    """What the product's line asks for each of its threads, and gets where the unit file allows it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        pass


class HostProcess:
    def __init__(self, truth: Path, notes: Path, seed: int) -> None:
        self._truth = truth.open()
        self._rest = ""
        self._notes_fd = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._brain = Brain(seed, self.write)
        self._news = threading.Condition()
        self.port: BridgePort | None = None
        self._is_prompt = False

    def write(self, note: Note) -> None:
        os.write(self._notes_fd, (json.dumps({**note, "ns": time.monotonic_ns()}) + "\n").encode())

    def hear(self, event: LinkEvent) -> None:
        if not self._is_prompt:
            self._is_prompt = True
            run_promptly()  # the port's thread, as the line does
        with self._news:
            if isinstance(event, Triggered):
                self._look()
            self._brain.hear(event, time.monotonic_ns())
            self._news.notify()

    def serve(self, is_stopping: threading.Event) -> None:
        assert self.port is not None
        run_promptly()
        while not is_stopping.is_set():
            with self._news:
                due_ns = self._brain.next_due_ns()
                wait_s = 0.05 if due_ns is None else min(0.05, (due_ns - time.monotonic_ns()) / 1e9)
                if wait_s > 0:
                    self._news.wait(wait_s)
                ready = self._brain.due(time.monotonic_ns())
            for boot_id, part_id, reject in ready:
                self.port.send_verdict(boot_id, part_id, reject)

    def _look(self) -> None:
        """What the camera has seen since the last look."""
        *lines, self._rest = (self._rest + self._truth.read()).split("\n")
        self._brain.inspector.see(map(json.loads, lines))


def last_known(notes: Path) -> tuple[int, int] | None:
    """Boot id and part of the newest trigger an earlier host wrote down, as the product finds them in its journal."""
    try:
        lines = [json.loads(line) for line in notes.read_text().splitlines()]
    except FileNotFoundError:
        return None
    triggers = [(line["boot"], line["part"]) for line in lines if line["ev"] == "trigger"]
    return triggers[-1] if triggers else None


def main() -> None:
    port_path, truth, notes, seed, setup = sys.argv[1:]
    sys.setswitchinterval(0.0005)
    is_stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resume = last_known(Path(notes))
    host = HostProcess(Path(truth), Path(notes), int(seed))
    port = host.port = BridgePort(port_path, Link(make_setup(json.loads(setup)), resume=resume), host.hear)
    try:
        port.start(must_open=False)
    except PortError as err:
        sys.exit(f"error: {err}")
    port.set_armed(True)
    host.write({"ev": "started"})
    host.serve(is_stopping)
    host.write({"ev": "report", **port.report()})
    port.stop()


if __name__ == "__main__":
    main()
