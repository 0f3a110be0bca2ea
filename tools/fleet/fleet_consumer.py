"""From the stream into the database, then the acknowledgements: first to the box, then to the stream.

Every step may be cut off by a crash, and only repeats what follows it: a batch that was stored and not acknowledged
comes again and changes nothing. Nothing is fetched while the database is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import nats
import psycopg
from fleet_acks import AckSpeaker
from fleet_records import Delivery, read
from fleet_store import Connection, Stored, connect, prepare, recent_acks, store
from fleet_streams import NOT_YET, subscribe
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from edge_runtime.sync.backoff import Backoff

log = logging.getLogger(__name__)

FETCH_S = 0.5  # a batch waits so long for company: the most that a record is delayed here
RETRY_MOST_S = 5.0
TELL_EVERY_S = 10.0
GOODBYE_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    servers: Sequence[str]
    dsn: str
    batch: int = 1000
    ack_wait_s: float = 30.0  # a batch takes 0.1 s; a consumer that is silent so long is gone
    nats: dict[str, Any] | None = None  # user, password, tls: as nats.connect takes them


class Consumer:
    """One writer; several may run."""

    def __init__(self, options: Options, speaker: AckSpeaker) -> None:
        self._options = options
        self._speaker = speaker
        self._database: Connection | None = None
        self._nats: Client | None = None
        self._pull: JetStreamContext.PullSubscription | None = None
        self._backoff = Backoff(RETRY_MOST_S, 0.1)
        self._trouble = ""
        self._told_at = time.monotonic()
        self.counts: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Database, stream and broker may come and go."""
        try:
            while not stop.is_set():
                try:
                    await self._turn(stop)
                    self._well()
                except (psycopg.Error, *NOT_YET) as err:
                    await self._note(err, stop)
        finally:
            await self._close()

    async def _turn(self, stop: asyncio.Event) -> None:
        if self._database is None or self._database.closed:
            await self._open_database()
        if self._pull is None:
            await self._open_stream()
        assert self._pull is not None
        try:
            messages = await self._pull.fetch(self._options.batch, timeout=FETCH_S)
        except TimeoutError:
            return  # nothing came
        if messages and await self._keep(messages, stop):
            for message in messages:
                await message.ack()

    async def _keep(self, messages: Sequence[Msg], stop: asyncio.Event) -> bool:
        """Into the database, however long that is away. False: told to stop before."""
        batch = [read(_delivery(message)) for message in messages]
        while not stop.is_set():
            try:
                if self._database is None or self._database.closed:
                    await self._open_database()
                assert self._database is not None
                stored = await store(self._database, batch)
            except psycopg.Error as err:
                await self._note(err, stop)
            else:
                self._speaker.say(stored.acks)
                self._count(stored)
                return True
        return False

    async def _open_database(self) -> None:
        self._database = await connect(self._options.dsn)
        try:
            await prepare(self._database)
            self._speaker.say(await recent_acks(self._database))
        except BaseException:
            await self._database.close()
            raise

    async def _open_stream(self) -> None:
        if self._nats is None:
            self._nats = await nats.connect(
                servers=list(self._options.servers),
                name="edge-fleet-consume",
                max_reconnect_attempts=-1,
                connect_timeout=3,
                reconnect_time_wait=0.5,
                ping_interval=10,
                max_outstanding_pings=2,
                error_cb=_log_error,
                **(self._options.nats or {}),
            )
        self._pull = await subscribe(self._nats.jetstream(), self._options.ack_wait_s)

    async def _note(self, error: BaseException, stop: asyncio.Event) -> None:
        """Say it once, wait, and begin with fresh connections where these are no good."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if text != self._trouble:
            log.warning("consume.trouble %s", text)
        self._trouble = text
        if isinstance(error, psycopg.Error):
            if self._database is not None and not isinstance(error, psycopg.errors.DeadlockDetected):
                await self._database.close()
        elif self._pull is not None:
            pull, self._pull = self._pull, None
            with contextlib.suppress(*NOT_YET):
                await pull.unsubscribe()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), self._backoff.next_s())

    def _well(self) -> None:
        self._backoff.succeeded()
        if self._trouble:
            log.info("consume.well")
            self._trouble = ""

    def _count(self, stored: Stored) -> None:
        self.counts += stored.counts
        if time.monotonic() - self._told_at >= TELL_EVERY_S:
            self._told_at = time.monotonic()
            log.info("consume.stored %s acks=%d", _listed(self.counts), self._speaker.said)

    async def _close(self) -> None:
        """What is not acknowledged comes again."""
        if self._nats is not None:
            await _within(self._nats.flush(), GOODBYE_S)  # acknowledgements of the last batch
            await _within(self._nats.close(), GOODBYE_S)
        if self._database is not None:
            await _within(self._database.close(), GOODBYE_S)
        log.info("consume.end %s acks=%d", _listed(self.counts), self._speaker.said)


def _delivery(message: Msg) -> Delivery:
    found = message.metadata
    return Delivery(message.subject, message.data, found.timestamp, found.num_delivered > 1)


def _listed(counts: Counter[str]) -> str:
    return " ".join(f"{name}={counts[name]}" for name in ("records", "repeated", "redelivered", "set_aside", "states"))


async def _within(work: Awaitable[Any], seconds: float) -> None:
    with contextlib.suppress(TimeoutError, *NOT_YET, psycopg.Error):
        await asyncio.wait_for(work, seconds)


async def _log_error(error: Exception) -> None:
    log.debug("nats %s", error)  # the library reconnects; what it cannot repair ends a fetch
