"""What the journal tells of a shift: counts since it began, the last hour by the minute, the newest rejects.

Nothing is counted twice: rows whose part is decided are added up once, and each look reads only what came since. The
journal is opened anew for each look, because a running box may set it aside and begin another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import time_ns

from edge_runtime.core.errors import StorageError
from edge_runtime.recording.reader import JournalReader, PartFilter, PartRow
from edge_runtime.serve.pages.documents import Counts, Kept, Minute, ShiftLook

MINUTE_NS = 60 * 10**9
HOUR = 60  # minutes
STRIP = 16  # parts; more than that nobody touches on one screen
LOOKED_BACK = 20_000  # rows searched for the strip at the first look
Tally = Counter[tuple[int, str]]  # (minute, verdict) -> parts


def shift_start(starts: Sequence[str], now: datetime) -> datetime:
    """The newest of the local times `HH:MM` that is not after now."""
    days = [now.date(), now.date() - timedelta(days=1)]
    moments = [
        datetime.combine(day, datetime.strptime(start, "%H:%M").time(), now.tzinfo) for day in days for start in starts
    ]
    return max(moment for moment in moments if moment <= now)


class Shift:
    """Use it in one thread."""

    def __init__(self, journal: Path, starts: Sequence[str], utc_ns: Callable[[], int] = time_ns) -> None:
        self._journal, self._starts, self._utc_ns = journal, starts, utc_ns
        self._begin_anew(0)

    def _begin_anew(self, since_ns: int) -> None:
        self._since_ns = since_ns
        self._above: int | None = None  # rows up to here are added up
        self._tally: Tally = Counter()
        self._strip: list[int] = []

    def look(self) -> ShiftLook:
        now = datetime.fromtimestamp(self._utc_ns() / 1e9).astimezone()
        since_ns = round(shift_start(self._starts, now).timestamp() * 1e9)
        if since_ns != self._since_ns:
            self._begin_anew(since_ns)
        try:
            with JournalReader(self._journal) as reader:
                return self._read(reader)
        except StorageError as err:
            self._begin_anew(since_ns)
            return ShiftLook(since_ns // 10**6, Counts(0, 0, 0, 0), (), (), err.what)

    def _read(self, reader: JournalReader) -> ShiftLook:
        newest = reader.newest(1)
        if self._above is None or (newest and newest[0].id < self._above):  # another journal
            self._begin_anew(self._since_ns)
            self._above = reader.row_before(self._since_ns)
        settled = reader.settled(self._above)
        self._find_rejects(reader, self._above)
        self._tally.update(_tally(reader.minutes(self._above, settled)))
        self._above = settled
        tally = self._tally + _tally(reader.minutes(settled))
        strip = [row for row in (reader.part(number) for number in self._strip) if row]
        return ShiftLook(
            self._since_ns // 10**6, _counts(tally), self._hour(tally), tuple(kept(row) for row in strip), ""
        )

    def _find_rejects(self, reader: JournalReader, above: int) -> None:
        above = above if self._strip else max(0, min(above, reader.settled() - LOOKED_BACK))
        which = PartFilter(verdicts=("reject", "unsure"), above=above)
        found = [row.id for row in reader.newest(STRIP, which)]
        self._strip = sorted({*self._strip, *found}, reverse=True)[:STRIP]

    def _hour(self, tally: Tally) -> tuple[Minute, ...]:
        last = self._utc_ns() // MINUTE_NS
        return tuple(_minute(tally, minute) for minute in range(last - HOUR + 1, last + 1))


def _tally(rows: Sequence[tuple[int, str | None, int]]) -> Tally:
    return Counter({(minute, verdict or ""): count for minute, verdict, count in rows})


def _counts(tally: Tally) -> Counts:
    sums: Counter[str] = Counter()
    for (_, verdict), count in tally.items():
        sums[verdict] += count
    return Counts(sum(sums.values()), sums["accept"], sums["reject"], sums["unsure"])


def _minute(tally: Tally, minute: int) -> Minute:
    accept, reject, unsure, waiting = (tally[minute, word] for word in ("accept", "reject", "unsure", ""))
    return Minute(minute * 60_000, accept + reject + unsure + waiting, reject, unsure)


def kept(row: PartRow) -> Kept:
    return Kept(
        row=row.id,
        part=row.part,
        at_ms=row.trigger_utc_ns // 10**6,
        verdict=row.verdict or "",
        cause=row.cause or "",
        reason=row.reason or "",
        score=row.score,
        ms=None if row.trigger_to_verdict_ms is None else round(row.trigger_to_verdict_ms, 1),
        outcome=row.outcome,
        label=row.label or "",
        model=row.model or "",
        regions=row.regions,
        has_picture=row.evidence is not None,
    )
