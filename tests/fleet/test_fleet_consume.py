"""The consumer as a process, between a real NATS and a real PostgreSQL that come and go."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet_nodes import Cluster
from fleet_streams import make_stream

from tests.fleet.fleet_rig import EPOCH, ask, payload
from tests.support.waiting import WAIT_S, until

TOOLS = Path(__file__).parents[2] / "tools" / "fleet"
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(engine: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Starts a consumer; it is ended by its own pid."""
    with ExitStack() as cleanup:

        def begin(dsn: str, *words: str) -> subprocess.Popen[bytes]:
            line = [sys.executable, str(TOOLS / "consume"), "--nats", engine.urls[0], "--dsn", dsn]
            line += [
                "--mqtt",
                f"127.0.0.1:{engine.mqtt_ports[0]}",
                "--user",
                "consumer",
                "--ack-every",
                "0.1",
                "--ack-wait",
                "3",
            ]
            line += ["--password-file", str(engine.password_file("consumer")), *words]
            with (tmp_path / "consume.log").open("ab") as log:
                child = subprocess.Popen(line, stdout=log, stderr=log)
            cleanup.callback(child.wait)
            cleanup.callback(child.kill)
            return child

        yield begin


def publish(engine: Cluster, messages: list[tuple[str, bytes]]) -> None:
    """Into the stream, acknowledged by it, as the user that boxes are."""
    import nats

    async def send() -> None:
        client = await nats.connect(engine.urls, user="box", password=engine.password("box"))
        for subject, body in messages:
            await client.publish(subject, body)
        await client.flush()
        await client.close()

    asyncio.run(send())


def records(box: str, first: int, last: int) -> list[tuple[str, bytes]]:
    return [(f"edge.north.line-2.{box}.rec", payload(box, seq)) for seq in range(first, last + 1)]


def count(dsn: str) -> int:
    try:
        return int(ask(dsn, "SELECT count(*) FROM record")[0][0])
    except Exception:
        return -1  # not there yet


def end(child: subprocess.Popen[bytes]) -> float:
    begun = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    return time.monotonic() - begun


def test_killed_and_parallel_consumers_store_every_record_once(engine: Cluster, dsn: str, start: Start) -> None:
    bad = [("edge.north.line-2.box-1.rec", b"{"), ("edge.north.line-2.box-1.state", b'{"state": 5}')]
    publish(engine, records("box-1", 1, 1500) + bad + records("box-1", 1, 300) + records("box-2", 1, 1500))
    first = start(dsn, "--batch", "50")
    until(lambda: count(dsn) >= 200)
    first.kill()
    others = [start(dsn, "--batch", "50"), start(dsn, "--batch", "70")]
    publish(engine, records("box-2", 1501, 2000))
    until(lambda: count(dsn) == 3500, 60.0)  # what the dead one held comes again
    assert set(ask(dsn, "SELECT received::text FROM epoch")) == {("{[1,1501)}",), ("{[1,2001)}",)}
    assert ask(dsn, "SELECT count(*), sum(times) FROM set_aside") == [(2, 2)]
    # 300 came twice from the box, some of them again from the stream; the last of them may still be on their way
    until(lambda: sum(ask(dsn, "SELECT sum(repeated), sum(redelivered) FROM epoch")[0]) >= 300, 60.0)
    ((repeated,),) = ask(dsn, "SELECT sum(repeated) FROM epoch")
    assert repeated <= 300
    assert all(end(child) < 5.0 for child in others)


def test_a_box_hears_what_is_safe_even_when_it_was_away(engine: Cluster, dsn: str, start: Start) -> None:
    from edge_runtime.sync.mqtt.link import MqttLink
    from edge_runtime.sync.mqtt.settings import LinkSettings, Message

    publish(engine, [*records("box-1", 1, 20), *records("box-1", 22, 25)])
    child = start(dsn)
    until(lambda: count(dsn) == 24)
    end(child)
    heard: list[Message] = []
    settings = LinkSettings(
        "127.0.0.1",
        engine.mqtt_ports[0],
        "edge-box-1",
        "3.1.1",
        username="box",
        password_file=str(engine.password_file("box")),
    )
    link = MqttLink(settings, subscriptions=[("edge/north/line-2/box-1/ack", 1)], on_message=heard.append)
    limit = time.monotonic() + WAIT_S
    while not heard and time.monotonic() < limit:
        link.turn(0.05)
    link.close()
    assert json.loads(heard[0].payload) == {"epoch": EPOCH, "seq": 20, "ranges": [[22, 25]]}
    assert heard[0].retain


def test_it_waits_for_the_stream_and_goes_on_when_it_is_back(engine: Cluster, dsn: str, start: Start) -> None:
    node = engine.nodes[0]
    publish(engine, records("box-1", 1, 10))
    child = start(dsn)
    until(lambda: count(dsn) == 10)
    engine.kill(node)
    engine.launch(node)
    engine.await_node(node)
    publish(engine, records("box-1", 11, 30))
    until(lambda: count(dsn) == 30)
    assert child.poll() is None
    assert end(child) < 5.0


def test_it_ends_in_time_when_neither_stream_nor_database_is_there(
    engine: Cluster, start: Start, tmp_path: Path
) -> None:
    engine.stop()
    child = start(f"host={tmp_path} user=nobody")
    until(lambda: "consume.trouble" in (tmp_path / "consume.log").read_text())
    assert end(child) < 5.0


def test_making_the_stream_twice_changes_nothing(engine: Cluster) -> None:
    publish(engine, records("box-1", 1, 5))
    for size in (1 << 30, 2 << 30):
        asyncio.run(make_stream(engine.urls, engine.password("admin"), 1, size))
    import nats

    async def look() -> tuple[int, int | None]:
        client = await nats.connect(engine.urls, user="admin", password=engine.password("admin"))
        info = await client.jetstream().stream_info("RECORDS")
        await client.close()
        return info.state.messages, info.config.max_bytes

    assert asyncio.run(look()) == (5, 2 << 30)


def test_boxes_may_not_read_what_other_boxes_send(engine: Cluster) -> None:
    import nats

    async def listen() -> list[str]:
        refused: list[str] = []

        async def note(error: Exception) -> None:
            refused.append(str(error))

        client = await nats.connect(engine.urls, user="box", password=engine.password("box"), error_cb=note)
        await client.subscribe("edge.*.*.*.rec")
        await client.publish("edge.north.line-2.box-1.ack", b"{}")
        await client.flush()
        for _ in range(100):
            if len(refused) >= 2:
                break
            await asyncio.sleep(0.02)
        await client.close()
        return refused

    refused = " ".join(asyncio.run(listen())).lower()
    assert "subscription" in refused
    assert "publish" in refused
