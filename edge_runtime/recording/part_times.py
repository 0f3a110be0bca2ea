"""`parts list --since` when a clock was wrong: what was recorded when, by the clock that does not jump.

A part of this boot of the machine is as old as the monotonic clock says, whatever date it bears. Parts of earlier boots
have only their date. Where nobody vouched for that one, and the time that the box was on since then does not prove that
they are older, a note says that they may be missing from the list.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.recording.clock_watch import span
from edge_runtime.recording.on_time import FILE, OnTime
from edge_runtime.recording.reader import BootSince, JournalReader, PartRow
from edge_runtime.recording.wall_clock import TimeQuality, machine_boot

TOLERATED_NS = 60 * SECOND  # a clock that was set by less is nobody's trouble
MOST_RUNS = 100  # looked at for parts that may be missing


def boot_since(since_utc_ns: int, clock: Clock = monotonic_ns) -> BootSince:
    """The same moment on the monotonic clock: as long before now."""
    return BootSince(machine_boot(), clock() - (time.time_ns() - since_utc_ns))


def clock_notes(reader: JournalReader, rows: Sequence[PartRow], since_utc_ns: int | None) -> Iterator[str]:
    """What to know about the dates of the parts that are listed, and about those that are not."""
    yield from _wrong_dates(reader, rows)
    if since_utc_ns is not None:
        yield from _not_listed(reader, since_utc_ns)


def _wrong_dates(reader: JournalReader, rows: Sequence[PartRow]) -> Iterator[str]:
    ours = set(reader.runs_of_boot(machine_boot()))
    offset_ns = time.time_ns() - monotonic_ns()
    off = [row.trigger_utc_ns - row.trigger_ns - offset_ns for row in rows if row.run in ours]
    wrong = [by_ns for by_ns in off if abs(by_ns) > TOLERATED_NS]
    if wrong:
        most = max(wrong, key=abs)
        way = "ahead of" if most > 0 else "behind"
        yield (
            f"the clock was {span(abs(most))} {way} what it shows now when {len(wrong)} of these parts were recorded: "
            "they are listed by their true age, their TIME is that clock's"
        )


def _not_listed(reader: JournalReader, since_utc_ns: int) -> Iterator[str]:
    """Runs of earlier boots, the newest first, until one is proven to be older than what was asked for."""
    on_time = OnTime(reader.path.with_name(FILE), monotonic_ns)
    asked_ns = time.time_ns() - since_utc_ns
    ours, doubtful = set(reader.runs_of_boot(machine_boot())), 0
    latest = on_time.now()
    for run, boot, started_ns in reader.newest_runs(MOST_RUNS):
        if run not in ours:
            if on_time.now() - latest > asked_ns:
                break
            dated = reader.last_date(run)
            doubtful += dated is not None and dated[0] < since_utc_ns and dated[1] != TimeQuality.SYNCED
        begun_on = on_time.of_boot(boot, started_ns)
        latest = latest if begun_on is None else min(latest, begun_on)
    if doubtful:
        yield (
            f"parts of {doubtful} earlier runs have older dates and may be newer, because their clock was not "
            "synchronised: `parts list --last N` has all parts in the order in which they came"
        )
