"""A real PostgreSQL and a real NATS for the fleet's tests; what was started is stopped."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_nodes import Cluster, ClusterError, nats_program


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server of our own."""
    from fleet_postgres import NoPostgres, PrivatePostgres

    try:
        server = PrivatePostgres()
    except NoPostgres as err:
        pytest.skip(str(err))
    try:
        server.start()
        yield server.dsn
    finally:
        server.stop()


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """An empty database with the fleet's tables."""
    from fleet_store import connect, prepare

    async def make() -> None:
        connection = await connect(postgres)
        await prepare(connection)
        await connection.close()

    asyncio.run(make())
    yield postgres
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP SCHEMA fleet CASCADE")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Cluster]:
    """One NATS node with the stream."""
    from fleet_streams import make_stream

    try:
        nats_program()
    except ClusterError as err:
        pytest.skip(str(err))
    cluster = Cluster.make(tmp_path / "engine", 1)
    try:
        cluster.start()
        asyncio.run(make_stream(cluster.urls, cluster.password("admin"), 1, 1 << 30))
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(tmp_path / "engine", ignore_errors=True)
