"""Messages into PostgreSQL: each record once, whoever brings it and however often; one transaction a batch.

The name (box, epoch, seq) is the primary key and the insert skips what is there. Which numbers of an epoch are safe is
kept beside it as a multirange, in the same transaction, so that an acknowledgement is true whichever of several
consumers makes it. All rows are locked in the order of their keys: parallel consumers wait, and do not deadlock.

One message that the database refuses must not block the others: the batch is halved until it is alone, and set aside.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from fleet_records import MOST_PAYLOAD, BoxState, Name, Place, Read, Record, SetAside, Span
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Int8Range

from edge_runtime.recording.pruned import ranges
from edge_runtime.sync.outbox.sender import MOST_RANGES

SCHEMA_FILE = Path(__file__).with_name("schema.sql")
CONNECT_WAIT_S = 3
STATEMENT_MS = 30_000  # a batch takes 50 ms; what takes longer hangs behind somebody's lock
_COLUMNS = (
    "box, epoch, seq, content, site, line, kind, monotonic_ns, time, time_quality, journal, run, model, model_digest,"
    " config_digest, part_row, revision, verdict, score, data, heard_at"
)
_INCOMING = (
    f"CREATE TEMP TABLE IF NOT EXISTS incoming ON COMMIT DELETE ROWS AS SELECT {_COLUMNS} FROM record WITH NO DATA"
)
_INSERT = f"""
INSERT INTO record ({_COLUMNS}) SELECT {_COLUMNS} FROM incoming ORDER BY box, epoch, seq
ON CONFLICT DO NOTHING RETURNING box, epoch, seq"""
_CONFLICTS = """
SELECT DISTINCT i.box, i.epoch, i.seq, i.content FROM incoming i JOIN record r USING (box, epoch, seq)
WHERE i.content <> r.content"""
_ASIDE = """
INSERT INTO set_aside (digest, subject, payload, reason, box, epoch, seq, first_at, last_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (digest) DO UPDATE SET times = set_aside.times + 1, last_at = excluded.last_at"""
_EPOCH = """
INSERT INTO epoch (box, epoch, received, dropped, repeated, redelivered, began_at, heard_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (box, epoch) DO UPDATE SET received = epoch.received + excluded.received,
    dropped = epoch.dropped + excluded.dropped, repeated = epoch.repeated + excluded.repeated,
    redelivered = epoch.redelivered + excluded.redelivered, heard_at = greatest(epoch.heard_at, excluded.heard_at)
RETURNING received + dropped"""
_BOX = """
INSERT INTO box (box, site, line, heard_at, state, state_why, state_at) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (box) DO UPDATE SET
    site = CASE WHEN excluded.heard_at >= box.heard_at THEN excluded.site ELSE box.site END,
    line = CASE WHEN excluded.heard_at >= box.heard_at THEN excluded.line ELSE box.line END,
    heard_at = greatest(box.heard_at, excluded.heard_at),
    state = CASE WHEN excluded.state_at >= coalesce(box.state_at, '-infinity') THEN excluded.state ELSE box.state END,
    state_why = CASE WHEN excluded.state_at >= coalesce(box.state_at, '-infinity')
                THEN excluded.state_why ELSE box.state_why END,
    state_at = greatest(box.state_at, excluded.state_at)"""
_RECENT = """
SELECT b.site, b.line, e.box, e.epoch, e.received + e.dropped FROM epoch e JOIN box b USING (box)
WHERE e.heard_at > now() - %s::interval ORDER BY e.began_at"""

Connection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Ack:
    """What a box may delete now."""

    place: Place
    epoch: str
    spans: Sequence[Span]  # ascending, not touching

    def payload(self) -> bytes:
        """As `.../ack` has it: all up to `seq`, and `ranges` beyond. At most MOST_RANGES; the oldest are said first."""
        seq = self.spans[0][1] if self.spans and self.spans[0][0] == 1 else 0
        beyond = [list(span) for span in self.spans if span[0] > 1][:MOST_RANGES]
        return json.dumps({"epoch": self.epoch, "seq": seq, "ranges": beyond}, separators=(",", ":")).encode()


@dataclass(slots=True)
class Stored:
    """What became of a batch."""

    acks: list[Ack] = field(default_factory=list)  # of an epoch that began later after one that began earlier
    counts: Counter[str] = field(default_factory=Counter)  # records, repeated, redelivered, set_aside, states

    def add(self, other: Stored) -> None:
        self.acks += other.acks
        self.counts += other.counts


@dataclass(slots=True)
class _Epoch:
    """What a batch adds to one epoch."""

    place: Place
    began_at: datetime
    heard_at: datetime
    seqs: set[int] = field(default_factory=set)
    dropped: set[Span] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


async def connect(dsn: str) -> Connection:
    """Raises psycopg.Error."""
    connection = await psycopg.AsyncConnection.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_WAIT_S,
        options=f"-c search_path=fleet,pg_temp -c statement_timeout={STATEMENT_MS}",
        application_name="edge-fleet-consume",
        keepalives_idle=10,
        tcp_user_timeout=15_000,
    )
    await connection.set_autocommit(True)
    return connection


async def prepare(connection: Connection) -> None:
    """Bring the schema up to date. Raises psycopg.Error."""
    await connection.execute(SCHEMA_FILE.read_bytes())
    await connection.execute("SET search_path = fleet, pg_temp")
    await connection.execute(_INCOMING)


async def store(connection: Connection, batch: Sequence[Read]) -> Stored:
    """All of it, each record once. Raises psycopg.Error when the database is not well; then nothing is half done,
    and the same batch may be tried again."""
    try:
        return await _write(connection, batch)
    except psycopg.DataError as err:
        if len(batch) == 1:
            return await _write(connection, [_refused(batch[0], err)])
    stored = Stored()
    for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
        stored.add(await store(connection, half))
    return stored


def _refused(message: Read, error: psycopg.DataError) -> SetAside:
    name = None if isinstance(message, BoxState) else message.name
    reason = (error.diag.message_primary or str(error)).replace("\x00", "")
    return SetAside(message.delivery, f"the database refuses it: {reason}", message.place, name)


async def recent_acks(connection: Connection, since: str = "1 hour") -> list[Ack]:
    """For all epochs heard lately: what a consumer that died may not have said."""
    rows = await (await connection.execute(_RECENT, (since,))).fetchall()
    return [Ack(Place(site, line, box), epoch, _spans(safe)) for site, line, box, epoch, safe in rows]


async def _write(connection: Connection, batch: Sequence[Read]) -> Stored:
    records = [message for message in batch if isinstance(message, Record)]
    aside = [message for message in batch if isinstance(message, SetAside)]
    stored = Stored()
    async with connection.transaction(), connection.cursor() as cursor:
        new = await _insert(cursor, records) if records else set()
        aside += await _impostors(cursor, records) if len(new) < len(records) else []
        await _set_aside(cursor, aside)
        epochs = _by_epoch(records, aside, new)
        stored.acks = await _note_epochs(cursor, epochs)
        await _note_boxes(cursor, batch)
    for found in epochs.values():
        stored.counts += found.counts
    stored.counts["set_aside"] += len(aside)
    stored.counts["states"] += sum(isinstance(message, BoxState) for message in batch)
    return stored


async def _insert(cursor: psycopg.AsyncCursor[Any], records: Iterable[Record]) -> set[Name]:
    """The names that were not there before."""
    async with cursor.copy(f"COPY incoming ({_COLUMNS}) FROM STDIN") as copy:
        for record in records:
            await copy.write_row(_row(record))
    await cursor.execute(_INSERT)
    return {Name(*row) for row in await cursor.fetchall()}


def _row(record: Record) -> tuple[Any, ...]:
    place, name = record.place, record.name
    return (
        *astuple(name),
        record.content,
        place.site,
        place.line,
        record.kind,
        record.monotonic_ns,
        record.time,
        record.time_quality,
        record.journal,
        record.run,
        record.model,
        record.model_digest,
        record.config_digest,
        record.part_row,
        record.revision,
        record.verdict,
        record.score,
        record.data,
        record.delivery.heard_at,
    )


async def _impostors(cursor: psycopg.AsyncCursor[Any], records: Sequence[Record]) -> list[SetAside]:
    """Records whose name already stands for something else: two boxes with one outbox, a disk image put back."""
    await cursor.execute(_CONFLICTS)
    found = {(Name(*row[:3]), row[3]) for row in await cursor.fetchall()}
    reason = "another record has this name: was a disk image put back, or a box cloned? remove its outbox.db"
    bad = [record for record in records if (record.name, record.content) in found]
    return [SetAside(record.delivery, reason, record.place, record.name) for record in bad]


async def _set_aside(cursor: psycopg.AsyncCursor[Any], aside: Iterable[SetAside]) -> None:
    for item in sorted(aside, key=lambda item: item.digest):
        name = astuple(item.name) if item.name else (None, None, None)
        at, payload = item.delivery.heard_at, item.delivery.payload[:MOST_PAYLOAD]
        subject = item.delivery.subject.replace("\x00", "")
        await cursor.execute(_ASIDE, (item.digest, subject, payload, item.reason, *name, at, at))


def _by_epoch(records: Iterable[Record], aside: Iterable[SetAside], new: set[Name]) -> dict[tuple[str, str], _Epoch]:
    epochs: dict[tuple[str, str], _Epoch] = {}
    unseen = set(new)
    messages: list[Record | SetAside] = [*records, *aside]
    for message in messages:
        name, place, at = message.name, message.place, message.delivery.heard_at
        if name is None or place is None:
            continue
        found = epochs.setdefault((name.box, name.epoch), _Epoch(place, at, at))
        found.began_at, found.heard_at = min(found.began_at, at), max(found.heard_at, at)
        found.seqs.add(name.seq)
        if isinstance(message, Record):
            found.dropped.update(message.dropped)
            found.counts[_what(message, unseen)] += 1
            unseen.discard(name)
    return epochs


def _what(record: Record, unseen: set[Name]) -> str:
    if record.name in unseen:
        return "records"
    return "redelivered" if record.delivery.is_redelivered else "repeated"


async def _note_epochs(cursor: psycopg.AsyncCursor[Any], epochs: dict[tuple[str, str], _Epoch]) -> list[Ack]:
    """What is safe now, the epoch that was heard last at the end."""
    if not epochs:
        return []
    keys = sorted(epochs)
    await cursor.executemany(_EPOCH, [_epoch_row(*key, epochs[key]) for key in keys], returning=True)
    acks = []
    for key in keys:
        row = await cursor.fetchone()
        acks.append((epochs[key].heard_at, Ack(epochs[key].place, key[1], _spans(row and row[0]))))
        cursor.nextset()
    return [ack for _, ack in sorted(acks, key=lambda pair: pair[0])]


def _epoch_row(box: str, epoch: str, found: _Epoch) -> tuple[Any, ...]:
    counts = found.counts
    return (
        box,
        epoch,
        _multirange(ranges(sorted(found.seqs))),
        _multirange(sorted(found.dropped)),
        counts["repeated"],
        counts["redelivered"],
        found.began_at,
        found.heard_at,
    )


async def _note_boxes(cursor: psycopg.AsyncCursor[Any], batch: Iterable[Read]) -> None:
    """Who was heard when. What the broker says of a box that is gone was not said by the box."""
    rows: dict[str, list[Any]] = {}
    for message in sorted(batch, key=lambda message: message.delivery.heard_at):
        place, at = message.place, message.delivery.heard_at
        if place is None:
            continue
        row = rows.setdefault(place.box, [place.box, place.site, place.line, at, None, None, None])
        if isinstance(message, BoxState):
            row[4:] = message.state, message.why, at
        if not (isinstance(message, BoxState) and message.state == "offline"):
            row[1:4] = place.site, place.line, at
    if rows:
        await cursor.executemany(_BOX, [row for _, row in sorted(rows.items())])


def _multirange(spans: Iterable[Span]) -> Int8Multirange:
    return Int8Multirange([Int8Range(first, last + 1) for first, last in spans])


def _spans(found: Any) -> list[Span]:
    """PostgreSQL hands ranges out as [first, beyond), in order and merged."""
    return [(part.lower, part.upper - 1) for part in found]
