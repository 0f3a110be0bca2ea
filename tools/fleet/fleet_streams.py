"""What JetStream keeps of a fleet: one stream of records and states, one durable consumer that all writers share.

MQTT carries no message id, so the stream's own dedupe window sees nothing of a box that sends twice; the database's
primary key does. The stream is a buffer, limited in age and size: what falls out of it unread was not acknowledged to
its box, which sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

import nats
import nats.errors
import nats.js.errors
from fleet_records import SUBJECTS
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, RetentionPolicy, StreamConfig

STREAM = "RECORDS"
DURABLE = "postgres"
MAX_AGE_S = 7 * 86_400.0
DEDUPE_S = 120.0  # for those who publish over NATS with a Nats-Msg-Id
ACK_PENDING = 20_000  # under way to all writers together
RETRY_S = 0.5
API_WAIT_S = 2.0  # without a leader nobody answers

NOT_YET = (nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError, OSError)


def stream_config(replicas: int, max_bytes: int) -> StreamConfig:
    return StreamConfig(
        name=STREAM,
        subjects=list(SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        max_age=MAX_AGE_S,
        max_bytes=max_bytes,
        duplicate_window=DEDUPE_S,
        num_replicas=replicas,
    )


def consumer_config(ack_wait_s: float) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=DURABLE,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=ack_wait_s,
        max_ack_pending=ACK_PENDING,
        max_deliver=-1,
    )


async def ensure_stream(js: JetStreamContext, replicas: int, max_bytes: int, wait_s: float = 30.0) -> None:
    """Make it, or bring it to these settings; a cluster that elects its leader still is waited for.

    Raises the last nats error when it does not come about within `wait_s`.
    """
    config, limit = stream_config(replicas, max_bytes), time.monotonic() + wait_s
    while True:
        try:
            try:
                await js.update_stream(config)
            except nats.js.errors.NotFoundError:
                await js.add_stream(config)
            return
        except NOT_YET:
            if time.monotonic() > limit:
                raise
        await asyncio.sleep(RETRY_S)


async def make_stream(urls: Sequence[str], password: str, replicas: int, max_bytes: int) -> None:
    """As `admin`, from anywhere. Idempotent. Raises nats errors."""
    client = await nats.connect(list(urls), user="admin", password=password)
    try:
        await ensure_stream(client.jetstream(timeout=API_WAIT_S), replicas, max_bytes)
    finally:
        await client.close()


async def subscribe(js: JetStreamContext, ack_wait_s: float) -> JetStreamContext.PullSubscription:
    """Our share of the durable consumer, which is made or takes our settings. Raises nats errors."""
    with contextlib.suppress(nats.js.errors.BadRequestError):  # it is there, with settings of somebody else's choice
        await js.add_consumer(STREAM, consumer_config(ack_wait_s))
    return await js.pull_subscribe_bind(consumer=DURABLE, stream=STREAM)
