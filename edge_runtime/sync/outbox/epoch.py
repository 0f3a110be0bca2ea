"""When a new epoch begins, and what is then said: an `epoch` record, an event for alarms, and what is lost, in `drop`s.

No (box, epoch, seq) may ever have two contents. So whoever opens an outbox asks whether it is the one that was written
here last, on this machine and on this medium; where that cannot be shown, what waits in it goes on under new names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.core.events import EventKind
from edge_runtime.core.machine import Machine, difference
from edge_runtime.sync.outbox.counts import lost_since
from edge_runtime.sync.outbox.mark import Mark
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.outbox.renumber import renumber
from edge_runtime.sync.outbox.seal import Last, Seal
from edge_runtime.sync.records.format import Draft, drop_record, epoch_record, own_event

log = logging.getLogger(__name__)

EVENT = EventKind.NEW_EPOCH


def why_new(why: str, before: Machine, now: Machine) -> str:
    """why: of the seal. Another machine or card explains a copy better than the copy does."""
    if what := difference(before, now):
        log.warning("outbox.machine the outbox was written on another one: %s differs", what)
        return "machine"
    return why


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the outbox before a new file. why: it is new, or empty; lost: what waited there and cannot be
    read; aside: the name under which the old file lies.
    """

    why: str
    seal: Seal | None
    lost: Last | None
    mark: Mark | None
    aside: Sequence[str]


def begin_file(queue: Queue, before: Before) -> dict[str, int]:
    """The first records of a new file say what came before it. Answers what of the journal waited there."""
    lost = before.lost if before.lost and before.lost.epoch != queue.epoch else None
    known = (before.lost, before.seal, before.mark)
    previous = next((one.epoch for one in known if one and one.epoch != queue.epoch), None)
    why = before.why or ("lost" if previous else "first")
    own, pictures = (lost.own, lost.pictures) if lost else ({}, 0)
    with queue.transaction():
        queue.add(_opening(queue, previous, why, before.aside, 0, own, pictures))
    return dict(lost.rows) if lost else {}


def begin_epoch(queue: Queue, epoch: str, why: str, last: Last | None, aside: Sequence[str]) -> None:
    """The same file under a new epoch: what waits in it comes again under new numbers."""
    previous, carried = queue.epoch, queue.waiting
    lost = lost_since(last, queue.counts.made)
    with queue.transaction():
        queue.epoch = epoch
        opening = _opening(queue, previous, why, aside, carried, lost, 0)
        highest = renumber(queue.db, previous, epoch, len(opening))
        queue.counts.made = queue.counts.own.copy()
        queue.last_seq = 0
        queue.add(opening)
        queue.last_seq = highest
        queue.db.execute("UPDATE meta SET epoch = ?", (epoch,))


def skip_reserved(queue: Queue, after: int) -> None:
    """After a power cut: numbers that may have been used are not used again."""
    first = queue.last_seq + 1
    log.warning("outbox.power_cut numbers=%d-%d are left out", first, after)
    with queue.transaction():
        queue.last_seq = after
        queue.add([drop_record(queue.wall, "number", "power_cut", 0, seqs=[(first, after)])])


def _opening(
    queue: Queue,
    previous: str | None,
    why: str,
    aside: Sequence[str],
    carried: int,
    lost: Mapping[str, int],
    pictures: int,
) -> list[Draft]:
    wall, level = queue.wall, logging.INFO if why == "first" else logging.WARNING
    log.log(level, "outbox.epoch epoch=%s why=%s previous=%s carried=%d", queue.epoch, why, previous, carried)
    drafts = [epoch_record(wall, previous, why, aside, carried)]
    if why == "first":
        return drafts
    drafts.append(own_event(EVENT, {"why": why, "previous": previous, "carried": carried}, wall))
    counts = {**lost, **({"evidence": lost.get("evidence", 0) + pictures} if pictures else {})}
    drafts += [drop_record(wall, kind, "outbox_lost", count) for kind, count in sorted(counts.items()) if count > 0]
    return drafts
