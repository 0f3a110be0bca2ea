"""What the fleet's tests share: messages as a box would send them, and a database to look into."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg", reason="no psycopg here: pip install 'psycopg[binary]'")
pytest.importorskip("nats", reason="no nats here: pip install nats-py")

from fleet_records import Delivery, Read, read
from fleet_store import Stored, connect, prepare, store

from edge_runtime.sync.records.format import SCHEMA

NOW = datetime.now(UTC)
EPOCH = "5f0c1e8a9b3d2c47"


def payload(box: str = "box-7", seq: int = 1, epoch: str = EPOCH, kind: str = "decision", **over: Any) -> bytes:
    data = {"row": seq, "revision": 0, "verdict": "accept", "score": 0.3}
    record = {
        "schema": SCHEMA,
        "box": box,
        "epoch": epoch,
        "seq": seq,
        "kind": kind,
        "monotonic_ns": seq,
        "time": "2026-03-01T08:15:30.125Z",
        "time_quality": "synced",
        "journal": "0b51c9d2aa10",
        "run": 1,
        "model": "scratch@1",
        "model_digest": "d1",
        "config_digest": "c1",
        "data": data | over.pop("data", {}),
    }
    return json.dumps(record | over).encode()


def message(
    box: str = "box-7",
    seq: int = 1,
    *,
    heard_at: datetime = NOW,
    again: bool = False,
    line: str = "line-2",
    **over: Any,
) -> Read:
    return read(Delivery(f"edge.north.{line}.{box}.rec", payload(box, seq, **over), heard_at, again))


def state(box: str, word: str, heard_at: datetime = NOW, why: str = "") -> Read:
    body = json.dumps({"box": box, "state": word, "why": why}).encode()
    return read(Delivery(f"edge.north.line-2.{box}.state", body, heard_at))


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def write(dsn: str, *batches: Sequence[Read]) -> list[Stored]:
    connection = await connect(dsn)
    try:
        await prepare(connection)
        return [await store(connection, batch) for batch in batches]
    finally:
        await connection.close()


def ask(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=fleet -c timezone=UTC") as connection:
        found: list[tuple[Any, ...]] = connection.execute(query.encode()).fetchall()
        return found
