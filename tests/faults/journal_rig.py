"""A journal in a process of its own that somebody else's hands get at, and what must hold afterwards.

The promise under test: every part that was flushed is in the present journal, or counted as missing in it; no row
number ever stands for two parts; rows are never missing without a word.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.flow.components import State
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo

INFO = RunInfo(model="scratch@1", model_digest="digest")
FLUSH_S = 10.0
WHY_MISSING = {"went_back", "replaced", "empty", "set_aside"}

_WRITER = """
import sys, time
from pathlib import Path
from edge_runtime.core.messages import *
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo
journal = Journal(Path(sys.argv[1]), RunInfo(model="scratch@1", model_digest="digest"))
journal.start()
boot = int(sys.argv[2])
for number in range(1, 1_000_000):
    key = PartKey(boot, number)
    journal.triggered(Trigger(key, number, number))
    journal.decided(Decision(key, Verdict.REJECT, Cause.MODEL, "x" * (number % 300), 0.9, number, number, number,
                             "scratch@1"), None, None)
    journal.ended(GateReport(key, Outcome.FIRED, number, number))
    if number % 5 == 0:
        begun = time.monotonic()
        if journal.flush(10.0):
            print(number, begun, journal.health().detail, flush=True)
        time.sleep(0.01)
"""


class Writer:
    """Parts as fast as the disk takes them, five a flush; `flushed` is how many were told durable."""

    def __init__(self, path: Path, boot: int = 1) -> None:
        command = [sys.executable, "-c", _WRITER, str(path), str(boot)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.flushed = 0
        self.words = ""

    def go_on(self, flushes: int) -> None:
        """Until so many flushes came back that began now or later. A writer that died is no reason to fail: the box
        starts it again."""
        assert self.process.stdout
        now, more = time.monotonic(), flushes
        while more:
            line = self.process.stdout.readline()
            if not line.endswith("\n"):
                return
            number, begun, *words = line.strip().split(" ", 2)
            self.flushed, self.words = int(number), words[0] if words else self.words
            more -= float(begun) >= now

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.stdout
        for line in self.process.stdout.read().splitlines():  # flushed before the signal came
            if line.split(" ")[0].isdigit():
                self.flushed = max(self.flushed, int(line.split(" ")[0]))
        self.process.stdout.close()
        self.process.wait()


@dataclass(frozen=True)
class Found:
    """A journal as the next start leaves it."""

    parts: dict[tuple[int, int], int]  # name -> row
    counted: int
    kinds: list[str]
    detail: str
    state: State
    problems: list[str]


def start_again(path: Path) -> Found:
    """The next start of the box: what it finds, says and counts."""
    journal = Journal(path, INFO)
    journal.start()
    flushed = journal.flush(FLUSH_S)
    health = journal.health()
    journal.stop()
    assert flushed, health
    with JournalReader(path) as reader:
        return Found(
            {(row.boot_id, row.part_id): row.id for row in reader.parts()},
            sum(loss["count"] for loss in reader.losses() if loss["what"] == "part" and loss["why"] in WHY_MISSING),
            [event["kind"] for event in reader.events(100)],
            health.detail,
            health.state,
            reader.problems(),
        )


def rows_of(path: Path) -> dict[int, tuple[int, int]]:
    with JournalReader(path) as reader:
        return {row.id: (row.boot_id, row.part_id) for row in reader.parts()}


def check_promise(found: Found, flushed: int, before: dict[int, tuple[int, int]], words: str = "") -> int:
    """How many flushed parts are not in the present journal; all of those are counted and told.

    before: rows and their parts as they were before the deed; words: what health said while it still ran.
    """
    missing = {(1, number) for number in range(1, flushed + 1)} - found.parts.keys()
    assert found.problems == []
    assert found.counted >= len(missing), f"{len(missing)} missing, {found.counted} counted, {found.kinds}"
    if missing:
        assert found.detail or words, "rows are missing without a word"
        assert {"journal.went_back", "journal.set_aside"} & set(found.kinds)
    reused = {row: (before[row], name) for name, row in found.parts.items() if before.get(row, name) != name}
    assert not reused, f"row numbers that stand for two parts: {reused}"
    return len(missing)


# -- what others do ----------------------------------------------------------------------------------------------------


def flip(path: Path, rng: random.Random, count: int = 64) -> None:
    """So many bytes in a row, from a random place."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        at = rng.randrange(max(1, size - count))
        file.seek(at)
        some = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in some))


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def delete(*ends: str) -> Callable[[Path, Path, random.Random], None]:
    def deed(journal: Path, _: Path, __: random.Random) -> None:
        for end in ends:
            journal.with_name(journal.name + end).unlink(missing_ok=True)

    return deed


def copy_over(journal: Path, older: Path, _: random.Random) -> None:
    """`cp backup/* state/`: the same files with other contents."""
    for source in older.iterdir():
        shutil.copyfile(source, journal.parent / source.name)


def move_over(journal: Path, older: Path, _: random.Random) -> None:
    """rsync: each file written beside and renamed into place."""
    for source in older.iterdir():
        beside = journal.parent / f".{source.name}.tmp"
        shutil.copyfile(source, beside)
        beside.rename(journal.parent / source.name)


def keep_older(journal: Path, older: Path) -> None:
    """A backup of the files as they are now."""
    older.mkdir()
    for end in ("", "-wal", "-shm"):
        source = journal.with_name(journal.name + end)
        if source.exists():
            shutil.copyfile(source, older / source.name)


def fill(ballast: Path) -> None:
    """Take all the room that its disk has left."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as err:
            assert err.errno == errno.ENOSPC
