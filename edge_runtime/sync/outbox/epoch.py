"""When a new epoch begins, and what is then said: an `epoch` record, an event for alarms, and what is lost, in `drop`s.

No (box, epoch, seq) may ever have two contents. So whoever opens an outbox asks whether it is the one that was written
here last, on this machine and on this medium; where that cannot be shown, what waits in it goes on under new names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_runtime.core.events import EventKind
from edge_runtime.core.machine import Machine, difference
from edge_runtime.sync.outbox.counts import lost_since
from edge_runtime.sync.outbox.mark import read_mark
from edge_runtime.sync.outbox.renumber import renumber
from edge_runtime.sync.outbox.seal import Last, Seal
from edge_runtime.sync.records.records import Draft, drop_record, epoch_record, own_event

if TYPE_CHECKING:
    from edge_runtime.sync.outbox.outbox import Outbox

log = logging.getLogger(__name__)

EVENT = EventKind.NEW_EPOCH


def why_new(why: str, before: Machine, now: Machine) -> str:
    """why: of the seal. Another machine or card explains a copy better than the copy does."""
    if what := difference(before, now):
        log.warning("outbox.machine the outbox was written on another one: %s differs", what)
        return "machine"
    return why


def begin_file(outbox: Outbox, seal: Seal | None, last: Last | None) -> None:
    """The first records of a new file say what came before it, as far as anybody knows."""
    mark = read_mark(outbox.path)
    lost = outbox.lost or last
    previous = next((known.epoch for known in (lost, seal, mark) if known and known.epoch != outbox.epoch), None)
    why = outbox.why_new or ("lost" if previous else "first")
    if lost and lost.epoch != outbox.epoch:
        outbox.rows_lost = dict(lost.rows)
    else:
        lost = None
    with outbox.transaction():
        outbox.add(_opening(outbox, previous, why, 0, lost.own if lost else {}, lost.pictures if lost else 0))
    outbox.why_new, outbox.lost = "", None


def begin_epoch(outbox: Outbox, why: str, epoch: str, last: Last | None) -> None:
    """The same file under a new epoch: what waits in it comes again under new numbers."""
    why, previous, carried = outbox.why_new or why, outbox.epoch, outbox.waiting
    lost = lost_since(last, outbox.counts.made)
    with outbox.transaction():
        outbox.epoch = epoch
        opening = _opening(outbox, previous, why, carried, lost, 0)
        highest = renumber(outbox.db, previous, epoch, len(opening))
        outbox.counts.made = outbox.counts.own.copy()
        outbox.last_seq = 0
        outbox.add(opening)
        outbox.last_seq = highest
        outbox.db.execute("UPDATE meta SET epoch = ?", (epoch,))
    outbox.why_new = ""


def skip_reserved(outbox: Outbox, after: int) -> None:
    """After a power cut: numbers that may have been used are not used again."""
    first = outbox.last_seq + 1
    log.warning("outbox.power_cut numbers=%d-%d are left out", first, after)
    with outbox.transaction():
        outbox.last_seq = after
        outbox.add([drop_record(outbox.wall, "number", "power_cut", 0, seqs=[(first, after)])])


def _opening(
    outbox: Outbox, previous: str | None, why: str, carried: int, lost: Mapping[str, int], pictures: int
) -> list[Draft]:
    wall, level = outbox.wall, logging.INFO if why == "first" else logging.WARNING
    log.log(level, "outbox.epoch epoch=%s why=%s previous=%s carried=%d", outbox.epoch, why, previous, carried)
    drafts = [epoch_record(wall, previous, why, outbox.aside[-1:], carried)]
    if why == "first":
        return drafts
    drafts.append(own_event(EVENT, {"why": why, "previous": previous, "carried": carried}, wall))
    counts = {**lost, **({"evidence": lost.get("evidence", 0) + pictures} if pictures else {})}
    drafts += [drop_record(wall, kind, "outbox_lost", count) for kind, count in sorted(counts.items()) if count > 0]
    return drafts
