"""A box whose clocks a test moves: true time, the monotonic clock of each boot, and a wall clock that may be anything.

The journal, the shelf of pictures and the shelf of clips are the real ones on a real disk; only their clocks are moved,
and their loops are turned by hand. What is gone after a turn is compared with when it was truly made.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.core.clock import SECOND
from edge_runtime.core.messages import (
    Event,
    HumanLabel,
    Label,
    OperatorRequest,
    PartKey,
    Trigger,
    Utterance,
    Verdict,
    Where,
)
from edge_runtime.recording import wall_clock
from edge_runtime.recording.clips import ClipShelf
from edge_runtime.recording.journal import CHORES_NS, Journal
from edge_runtime.recording.labelled_parts import labels_in_force
from edge_runtime.recording.records import RunInfo
from edge_runtime.recording.retention import PASS_SHARE, Retention
from edge_runtime.recording.shelf import Shelf

DAY = 86_400 * SECOND
HOUR = 3600 * SECOND
TRUE_START_NS = 1_795_000_000 * SECOND  # in 2026
KEEP_DAYS = 4
GOOD_DAYS = 2
SOUND = Utterance(0, 10, 16_000, np.zeros(16, np.int16), 0)


class World:
    """`on_ns` is how long the box was truly on; things are judged by it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *, synced: bool = True) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self._flag, self._boot_file = folder / "synchronized", folder / "boot_id"
        patch.setattr(wall_clock, "TIMESYNC_FLAG", self._flag)
        patch.setattr(wall_clock, "_kernel_is_synced", lambda: False)
        patch.setattr(wall_clock, "MACHINE_BOOT", self._boot_file)
        patch.setattr(os, "fsync", lambda _: None)  # power is not cut here, and a disk would take most of the time
        self.set_synced(synced)
        self.on_ns = 0
        self.true_ns = TRUE_START_NS
        self.wall_off_ns = 0  # what the wall clock adds to the truth
        self.drift = 0.0  # and how much that grows, per time that passes
        self.made: dict[str, int] = {}  # name of a thing -> on_ns
        self.gone: dict[str, int] = {}  # name -> age in on-time when it went
        self._boots = self._parts = 0
        self._boot()
        self._open()

    # -- clocks -------------------------------------------------------------------------------------------------------

    def clock(self) -> int:
        return self.mono_ns

    def utc_ns(self) -> int:
        return self.true_ns + self.wall_off_ns

    def set_synced(self, is_synced: bool) -> None:
        if is_synced:
            self._flag.touch()
        else:
            self._flag.unlink(missing_ok=True)

    def show(self, utc_ns: int) -> None:
        """The wall clock jumps to a date."""
        self.wall_off_ns = utc_ns - self.true_ns

    def pass_time(self, ns: int) -> None:
        self.on_ns += ns
        self.mono_ns += ns
        self.true_ns += ns
        self.wall_off_ns += round(ns * self.drift)

    # -- what happens to the box --------------------------------------------------------------------------------------

    def restart(self, down_ns: int = SECOND, *, killed: bool = False) -> None:
        self._close(killed)
        self.pass_time(down_ns)
        self._open()

    def reboot(self, off_ns: int = 0, *, killed: bool = False) -> None:
        self._close(killed)
        self.true_ns += off_ns
        self._boot()
        self._open()

    def _boot(self) -> None:
        self._boots += 1
        self._boot_file.write_text(f"boot-{self._boots}\n")
        self.mono_ns = 5 * SECOND

    def _open(self) -> None:
        self.retention = Retention(self.state, self.clock, self.utc_ns)
        self.journal = Journal(
            self.state / "journal.db",
            RunInfo(),
            self.clock,
            keep_days=KEEP_DAYS,
            utc_ns=self.utc_ns,
            retention=self.retention,
        )
        keep = {Verdict.ACCEPT: GOOD_DAYS, Verdict.REJECT: KEEP_DAYS, Verdict.UNSURE: KEEP_DAYS}
        labels = partial(labels_in_force, self.state / "journal.db")
        self.shelf = Shelf(self.state, 10**9, keep, 0, self.retention, labels)
        self.shelf.scan()
        self.clips = ClipShelf(self.state, GOOD_DAYS, self.retention, self._date)
        self._turn_journal()
        self.journal._file.writer._db.execute("PRAGMA synchronous = OFF")  # type: ignore[union-attr]

    def _date(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.utc_ns() // SECOND)

    def _close(self, killed: bool) -> None:
        if not killed:
            for event in self.retention.take_events(is_last=True):
                self.journal.happened(event)
            self._turn_journal(is_last=True)
        self.journal._file.close(is_last=True)

    def close(self) -> None:
        self._close(killed=False)

    # -- its work -----------------------------------------------------------------------------------------------------

    def record(self, count: int = 1) -> None:
        """Parts with pictures, an event, a request, a label of a part without a picture, a clip: all made now."""
        for _ in range(count):
            self._parts += 1
            key, verdict = PartKey(1, self._parts), (Verdict.ACCEPT, Verdict.REJECT)[self._parts % 2]
            self.journal.triggered(Trigger(key, 1, self.mono_ns))
            file = self.shelf.place(key, verdict, self.utc_ns(), ".jpg")
            self.shelf.put(file, verdict, b"picture", None)
            self.made[file] = self.on_ns
        self.journal.happened(Event("odd", self.mono_ns, {"made": self._parts}))
        self.journal.requested(
            OperatorRequest("typed", self.mono_ns, None, None, "", 1.0, None, (), 0, None, "empty", "", "")
        )
        self.label(PartKey(2, self._parts))
        self._turn_journal()
        for table in ("part", "event", "request", "label", "loss"):
            for (number,) in self._rows(f"SELECT id FROM {table}"):
                self.made.setdefault(f"{table} {number}", self.on_ns)
        sound = Utterance(self._parts, 10, 16_000, SOUND.pcm, 0)
        self.made[self.clips.keep(sound)] = self.on_ns

    def label(self, key: PartKey) -> None:
        self.journal.labelled(HumanLabel(key, Label.REJECT, self.mono_ns, "anna", Where.CLI))

    def turn(self) -> None:
        """One pass of everything that deletes by age."""
        before = self._present()
        self._turn_journal()
        if self.retention.look():
            self.shelf.expire()
        lost = before - self._present()
        stocks, went = Counter(map(_kind, before)), Counter(map(_kind, lost))
        for kind, count in went.items():
            assert count <= max(1, int(stocks[kind] * PASS_SHARE)), f"{count} of {stocks[kind]} {kind} in one pass"
        for name in lost:
            self.gone[name] = self.on_ns - self.made[name]

    def live(self, ns: int, *, step_ns: int = 6 * HOUR, parts: int = 1) -> None:
        """So much time of normal work."""
        until_ns = self.on_ns + ns
        while self.on_ns < until_ns:
            self.pass_time(min(step_ns, until_ns - self.on_ns))
            if parts:
                self.record(parts)
            self.turn()

    def _turn_journal(self, *, is_last: bool = False) -> None:
        self.journal._chores_ns -= CHORES_NS
        self.journal._turn(False)
        while len(self.journal._inbox):
            self.journal._group = self.journal._inbox.take(0.0, 0.0)
            self.journal._turn(False)
        if is_last:
            self.journal._turn(True)

    # -- what is there ------------------------------------------------------------------------------------------------

    def _present(self) -> set[str]:
        tables = ("part", "event", "request", "label")
        rows = {f"{table} {number}" for table in tables for (number,) in self._rows(f"SELECT id FROM {table}")}
        known = self.made.keys() - self.gone.keys()
        return {name for name in known if (name in rows if " " in name else (self.state / name).exists())}

    def _rows(self, query: str) -> list[tuple[int]]:
        assert self.journal._file.writer is not None
        return self.journal._file.writer._db.execute(query).fetchall()

    def left(self) -> Counter[str]:
        return Counter(map(_kind, self._present()))

    def kinds_gone(self) -> set[str]:
        return {_kind(name) for name in self.gone}

    def events(self, kind: str) -> int:
        return self._rows(f"SELECT count(*) FROM event WHERE kind = '{kind}'")[0][0]


def _kind(name: str) -> str:
    """part, event, request, label, clips, accept or reject."""
    if name.startswith("evidence/"):
        return name.rpartition("-")[2].partition(".")[0]
    return name.split("/", maxsplit=1)[0].split(" ", maxsplit=1)[0]


def keep_ns(name: str) -> int:
    return (GOOD_DAYS if _kind(name) in ("accept", "clips") else KEEP_DAYS) * DAY
