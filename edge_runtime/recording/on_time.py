"""How long the box has been on, over all its boots: the only age of a record that no wall clock can make wrong.

A calendar date is what a clock said, and clocks jump. The monotonic clock does not, but begins anew with each boot. So
its runs are added up here, in nanoseconds that only grow, and what was made is placed on that scale: rows of the
journal by the boot of their run and their monotonic time, folders of pictures and clips by when something was last put
there.

What is not known is counted as younger than it is, never as older: time while the box was off or `run` did not work
in a boot that has gone, the last minutes before a power cut, rows of boots from before this file, folders that nobody
noted. A lost file makes everything young again, and costs disk, not records. The price: a box that is on for 8 hours a
day keeps things three times as long by the calendar, and no more of them than a box that is always on.

Used from several threads; `save` alone touches the disk.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import Clock
from edge_runtime.core.files import write_atomic
from edge_runtime.recording.wall_clock import machine_boot

log = logging.getLogger(__name__)

FILE = "on_time.json"  # in the state folder
MOST_BOOTS = 400  # remembered; rows of older ones are as old as the oldest of these, at least
UNKNOWN_BOOT = "unknown"


@dataclass(frozen=True, slots=True)
class Span:
    """One boot on the scale: on-time at monotonic zero, and on-time when it was last seen to be on."""

    base_ns: int
    until_ns: int


class OnTime:
    """path: the file. clock: monotonic within `boot`, the kernel's name for this boot of the machine."""

    def __init__(self, path: Path, clock: Clock, boot: str | None = None) -> None:
        self._path = path
        self._clock = clock
        self._boot = machine_boot() if boot is None else boot
        self._lock = threading.Lock()
        self.kept = _read(path)  # what the last run left, for whoever else keeps a word there
        now_ns = clock()
        self._base_ns = _resume(self.kept, self._boot, now_ns) - now_ns
        self._boots = {boot: Span(*span) for boot, span in self.kept["boots"].items() if boot != UNKNOWN_BOOT}
        self._folders: dict[str, int] = dict(self.kept["folders"])
        self.has_same_boot = self.kept["boot"] == self._boot != UNKNOWN_BOOT and now_ns >= self.kept["mono_ns"]

    def now(self) -> int:
        """Nanoseconds that this box is known to have been on."""
        return self._base_ns + self._clock()

    # -- what was made when -------------------------------------------------------------------------------------------

    def of_boot(self, boot: str, at_ns: int) -> int | None:
        """When on this scale a moment of a boot was, or later; None where that boot is not known."""
        if boot == self._boot != UNKNOWN_BOOT:
            return min(self._base_ns + at_ns, self.now())
        span = self._boots.get(boot)
        return None if span is None else min(span.base_ns + at_ns, span.until_ns, self.now())

    def wrote(self, folder: str) -> None:
        """Something was put into a folder now."""
        with self._lock:
            self._folders[folder] = self.now()

    def of_folder(self, folder: str) -> int:
        """When something was last put there; a folder seen for the first time counts as written now."""
        now_ns = self.now()
        with self._lock:
            at_ns = self._folders.setdefault(folder, now_ns)
            if at_ns > now_ns:  # the file is older than the folder
                at_ns = self._folders[folder] = now_ns
            return at_ns

    def forget(self, folder: str) -> None:
        with self._lock:
            self._folders.pop(folder, None)

    def keep_only(self, inside: str, folders: Iterable[str]) -> None:
        """Forget those under `inside` that are not there any more."""
        there = set(folders)
        with self._lock:
            self._folders = {f: at for f, at in self._folders.items() if not f.startswith(inside) or f in there}

    # -- the file -----------------------------------------------------------------------------------------------------

    def save(self, more: Mapping[str, Any]) -> bool:
        """Write it down, with what others keep there. False where the disk refuses, which costs some on-time."""
        now_ns = self._clock()
        boots = {**self._boots, self._boot: Span(self._base_ns, self._base_ns + now_ns)}
        newest = sorted(boots.items(), key=lambda named: named[1].until_ns)[-MOST_BOOTS:]
        with self._lock:
            document = {
                **more,
                "on_ns": self._base_ns + now_ns,
                "boot": self._boot,
                "mono_ns": now_ns,
                "boots": {boot: [span.base_ns, span.until_ns] for boot, span in newest},
                "folders": dict(self._folders),
            }
        try:
            write_atomic(self._path, json.dumps(document), sync_folder=False)
        except OSError as err:
            log.warning("on_time.unsaved file=%s error=%s", self._path, err)
            return False
        return True


@dataclass(frozen=True, slots=True)
class Words:
    """What retention said when the file was written last."""

    says: str
    trouble: str  # empty: nothing that a person should mend


def read_words(path: Path) -> Words | None:
    """None where nothing was written yet, or nothing that makes sense."""
    found = _read(path)
    says, trouble = found.get("says"), found.get("trouble")
    return Words(says, trouble) if isinstance(says, str) and isinstance(trouble, str) else None


def _resume(kept: Mapping[str, Any], boot: str, now_ns: int) -> int:
    """On-time now. In the same boot the time between two runs counts, because the machine was on."""
    between = now_ns - kept["mono_ns"] if boot == kept["boot"] != UNKNOWN_BOOT else 0
    return int(kept["on_ns"]) + max(0, between)


def _read(path: Path) -> dict[str, Any]:
    """The file's words, or a beginning where there is none or it makes no sense."""
    beginning: dict[str, Any] = {"on_ns": 0, "boot": "", "mono_ns": 0, "boots": {}, "folders": {}}
    try:
        found = json.loads(path.read_text())
        if _makes_sense(found):
            return dict(found)
        raise ValueError("it makes no sense")
    except FileNotFoundError:
        return beginning
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        log.warning("on_time.unread file=%s error=%s: all that was kept counts as new", path, err)
        return beginning


def _makes_sense(found: Mapping[str, Any]) -> bool:
    on_ns, spans, folders = found["on_ns"], list(found["boots"].values()), list(found["folders"].values())
    numbers = [on_ns, found["mono_ns"], *(number for span in spans for number in span), *folders]
    return (
        isinstance(found["boot"], str)
        and all(type(number) is int for number in numbers)
        and all(len(span) == 2 and span[1] <= on_ns for span in spans)
        and on_ns >= 0
    )
