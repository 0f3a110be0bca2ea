"""Bad days of the uplink: nothing that was recorded is lost, and what comes twice is few and known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.errors import StorageError
from edge_runtime.flow.components import State
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.schema import OUTBOX
from edge_runtime.sync.outbox.settlement import DELETE_BATCH
from edge_runtime.sync.records.format import RecordFormat, own_event

CHILD = "tests.sync.sync_child"
START = Callable[..., Delivery]
from tests.support.waiting import WAIT_S, until
from tests.sync.sync_rig import BASE, Broker, Consumer, Line, Proxy

WALL = WallClock(monotonic_ns)
ROOT = Path(__file__).parents[2]
KILLER = ROOT / "tools/bench/outbox_kill"


@pytest.fixture
def proxy(mosquitto: Broker, make_proxy: Callable[[int], Proxy]) -> Proxy:
    """The box's way to the broker: what it sends the moment the way opens is heard by who subscribed before."""
    return make_proxy(mosquitto.port)


def complete(consumer: Consumer, numbers: set[int]) -> bool:
    return consumer.parts("decision") >= numbers and consumer.parts("outcome") >= numbers


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_nothing_is_lost_when_sync_line_and_broker_are_killed_at_random(
    kind: str, tmp_path: Path, make_broker: Callable[..., Broker]
) -> None:
    make_broker(kind).kill()  # or a skip where there is none
    command = [sys.executable, KILLER, "--kills", "8", "--broker", kind, "--json", "--keep", tmp_path / "kill"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (found,) = json.loads(done.stdout)
    assert found["ok"] and found["lost"] == 0 and found["records"] > 100, (found, done.stderr)


@pytest.fixture
def start_child(state: Path, closing: ExitStack) -> Callable[..., subprocess.Popen[str]]:
    def start(port: int, **sync: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", CHILD, str(state), str(port), json.dumps(sync)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

        def end() -> None:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()

        closing.callback(end)
        assert process.stdout and process.stdout.readline() == "started\n"
        return process

    return start


def test_a_killed_sync_repeats_no_more_than_window_and_delete_batch(
    mosquitto: Broker,
    consume: Callable[..., Consumer],
    line: Line,
    start_child: Callable[..., subprocess.Popen[str]],
) -> None:
    consumer = consume(mosquitto.port)
    numbers = set(line.parts(3000))
    process = start_child(mosquitto.port, window=50)
    until(lambda: len(consumer.records) > 1500)
    process.kill()
    process.wait()
    start_child(mosquitto.port, window=50)
    until(lambda: complete(consumer, numbers))
    assert consumer.missing() == {}
    assert sum(consumer.repeats.values()) <= 50 + DELETE_BATCH


def test_sigterm_ends_it_in_time_with_the_broker_frozen(
    mosquitto: Broker, line: Line, start_child: Callable[..., subprocess.Popen[str]]
) -> None:
    line.parts(500)
    process = start_child(mosquitto.port)
    time.sleep(0.3)
    mosquitto.freeze(True)
    line.parts(50)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 5.0
    mosquitto.freeze(False)


def test_a_cut_in_the_middle_of_a_publish_costs_nothing(
    broker: Broker, consume: Callable[..., Consumer], make_proxy: Callable[[int], Proxy], line: Line, start_sync: START
) -> None:
    consumer, proxy = consume(broker.port), make_proxy(broker.port)
    numbers = set(line.parts(800))
    proxy.cut_after = 30_000
    sync = start_sync(proxy.port)
    until(lambda: proxy.cuts >= 5)
    proxy.cut_after = None
    until(lambda: complete(consumer, numbers))
    assert sync.flush(20) and consumer.missing() == {}
    assert sync.report()["link"]["losses"] >= 5


def test_a_broker_that_accepts_and_never_acknowledges_is_left_and_nothing_deleted(
    mosquitto: Broker,
    consume: Callable[..., Consumer],
    make_proxy: Callable[[int], Proxy],
    line: Line,
    start_sync: START,
) -> None:
    proxy = make_proxy(mosquitto.port)
    sync = start_sync(proxy.port, ack_timeout_s=0.3, window=30)
    until(lambda: sync.link.is_up)
    proxy.is_deaf = True
    numbers = set(line.parts(200))
    until(lambda: sync.report()["link"]["losses"] >= 1)
    assert sync.health().state is State.DEGRADED and sync.outbox.waiting >= 400
    assert sync.report()["link"]["most_under_way"] <= 30
    consumer = consume(mosquitto.port)
    proxy.is_deaf = False
    proxy.cut()
    until(lambda: complete(consumer, numbers))


def test_a_broker_that_is_down_when_the_box_starts_is_waited_for(
    mosquitto: Broker, proxy: Proxy, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    proxy.refuse()
    sync = start_sync(proxy.port)
    numbers = set(line.parts(50))
    until(lambda: sync.outbox.waiting >= 100)
    until(lambda: "nobody listens there" in sync.health().detail)
    consumer = consume(mosquitto.port)
    proxy.listen_again()
    until(lambda: complete(consumer, numbers))
    assert sync.health().state is State.OK


def test_more_records_than_mqtt_has_numbers_wait_and_arrive(
    mosquitto: Broker, state: Path, start_sync: START, tmp_path: Path, closing: ExitStack
) -> None:
    program = shutil.which("mosquitto_sub")
    if not program:
        pytest.skip("no mosquitto_sub here: apt install mosquitto-clients")
    count = 66_000
    outbox = Outbox(state / OUTBOX, RecordFormat("box-7"), WALL)
    outbox.open()
    with outbox.transaction():
        outbox.add(own_event("x", {"n": number}, WALL) for number in range(count))
    outbox.close()
    with (tmp_path / "arrived").open("wb") as arrived:
        command = [program, "-p", str(mosquitto.port), "-q", "1", "-t", f"{BASE}/rec", "-c", "-i", "listener"]
        subprocess.run([*command, "-E"], check=True)  # from here on the broker keeps for it what it misses
        listener = subprocess.Popen([*command, "-C", str(count + 1)], stdout=arrived)
        closing.callback(listener.kill)
        sync = start_sync(mosquitto.port, window=500)
        assert listener.wait(90) == 0
    until(lambda: sync.outbox.waiting == 0)
    seqs = [json.loads(line)["seq"] for line in (tmp_path / "arrived").read_text().splitlines()]
    assert sorted(seqs) == list(range(1, count + 2))


def test_what_happens_now_overtakes_what_waits(
    mosquitto: Broker, consume: Callable[..., Consumer], line: Line, state: Path, start_sync: START
) -> None:
    outbox = Outbox(state / OUTBOX, RecordFormat("box-7"), WALL)
    outbox.open()
    with outbox.transaction():
        outbox.add(own_event("old", {"n": number, "pad": "x" * 300}, WALL) for number in range(40_000))
    outbox.close()
    consumer = consume(mosquitto.port)
    sync = start_sync(mosquitto.port)
    until(lambda: len(consumer.records) > 200)
    numbers = set(line.parts(3))
    until(lambda: complete(consumer, numbers))
    assert sync.outbox.waiting > 1000  # how soon, tools/bench/outbox says


# -- the consumer's acknowledgement ------------------------------------------------------------------------------------


def test_with_consumer_acks_a_record_stays_until_the_consumer_has_it(
    mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    sync = start_sync(mosquitto.port, ack="consumer", resend_after_s=600)
    numbers = set(line.parts(20))
    until(lambda: complete(consumer, numbers))
    assert sync.outbox.waiting == len(consumer.records)
    epoch, newest = sync.outbox.epoch, sync.outbox.last_seq
    odd_ones: list[Any] = [
        "no json",
        [1],
        {"epoch": epoch},
        {"epoch": epoch, "seq": newest + 1},
        {"epoch": epoch, "seq": -1},
        {"epoch": epoch, "seq": True},
        {"epoch": epoch, "seq": 1, "ranges": 7},
        {"epoch": epoch, "seq": 1, "ranges": [[1]]},
        {"epoch": epoch, "seq": 1, "ranges": [["a", "b"]]},
    ]
    for odd in odd_ones:
        consumer.publish(f"{BASE}/ack", odd)
    until(lambda: sync.report()["sender"]["bad_acks"] == len(odd_ones))
    assert sync.outbox.waiting == newest
    consumer.publish(f"{BASE}/ack", {"epoch": "of another life", "seq": 10})
    consumer.publish(f"{BASE}/ack", {"epoch": epoch, "seq": 10, "ranges": [[15, 20]]})
    until(lambda: sync.outbox.waiting == newest - 16)
    consumer.publish(f"{BASE}/ack", {"epoch": epoch, "seq": newest})
    assert sync.flush(10) and not consumer.repeats


def test_what_a_broker_forgot_goes_again_until_the_consumer_has_it(
    mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    numbers = set(line.parts(100))
    sync = start_sync(mosquitto.port, ack="consumer", resend_after_s=0.5)
    until(lambda: sync.report()["link"]["acknowledged"] > 200)  # nobody listens: the broker threw all away
    consumer = consume(mosquitto.port)
    until(lambda: complete(consumer, numbers))
    assert consumer.missing() == {}
    consumer.publish(f"{BASE}/ack", {"epoch": sync.outbox.epoch, "seq": sync.outbox.last_seq}, retain=True)
    assert sync.flush(10)


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(state: Path) -> Iterator[Path]:
    """A real file system of 4 MB in place of the state folder."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", state]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield state
    subprocess.run(["umount", "-l", state], check=True)


def test_a_full_disk_holds_records_back_and_loses_none(
    small_disk: Path,
    mosquitto: Broker,
    proxy: Proxy,
    consume: Callable[..., Consumer],
    closing: ExitStack,
    start_sync: START,
) -> None:
    line = Line(small_disk)
    closing.callback(line.stop)
    numbers = set(line.parts(50))
    proxy.refuse()
    sync = start_sync(proxy.port)
    until(lambda: sync.outbox.waiting >= 100)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for number in range(51, 251):
        line.trigger(number)
        line.decide(number)
        line.end(number)
    assert sync.post("command.refused", {"why": "x"}, wait_s=0.5) in (True, False)
    consumer = consume(mosquitto.port)
    proxy.listen_again()
    until(lambda: complete(consumer, numbers))  # what is on the disk goes out, full or not
    ballast.unlink()
    assert line.journal.flush(WAIT_S)
    until(lambda: complete(consumer, set(range(1, 251))))
    until(lambda: sync.health().state is State.OK)
    assert sync.flush(10) and consumer.missing() == {}
    assert {event["data"]["event"] for event in consumer.of("event")} == {"command.refused"}


def test_a_full_quota_leaves_records_in_the_journal_until_there_is_room(
    mosquitto: Broker, proxy: Proxy, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    proxy.refuse()
    sync = start_sync(proxy.port, quota_mb=5)
    numbers = set(line.parts(4500))
    until(lambda: sync.report()["full"])
    assert "stay in the journal" in sync.health().detail
    consumer = consume(mosquitto.port)
    proxy.listen_again()
    until(lambda: complete(consumer, numbers), 60)
    until(lambda: not sync.report()["full"])
    assert consumer.missing() == {} and sync.report()["dropped"] == {}


@pytest.mark.parametrize("how", ["overwritten", "deleted", "a bit flipped"])
def test_a_damaged_outbox_costs_a_new_epoch_and_no_record(
    how: str, state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    port = mosquitto.port
    mosquitto.kill()
    sync = start_sync(port)
    numbers = set(line.parts(300))
    until(lambda: sync.outbox.waiting >= 600)
    first = sync.outbox.epoch
    sync.stop()
    if how == "deleted":
        for file in state.glob("outbox.db*"):
            file.unlink()
    elif how == "overwritten":
        content = bytearray((state / OUTBOX).read_bytes())
        content[8192:] = os.urandom(len(content) - 8192)
        (state / OUTBOX).write_bytes(content)
    else:
        with sqlite3.connect(state / OUTBOX) as db:
            db.execute("UPDATE record SET payload = CAST(replace(payload, 'reject', 'accept') AS BLOB) WHERE seq = 300")
        db.close()
    mosquitto.start()
    consumer = consume(port)
    again = start_sync(port)
    numbers |= set(line.parts(10))
    until(lambda: complete(consumer, numbers))
    assert again.flush(10)
    assert all(record["data"]["verdict"] == "reject" for record in consumer.of("decision"))
    said = [record["data"] for record in consumer.of("epoch") if record["epoch"] == again.outbox.epoch]
    assert again.outbox.epoch != first and said[0]["previous"] == first
    assert said[0]["why"] == ("lost" if how == "deleted" else "damaged")
    assert [(state / name).exists() for name in again.outbox.aside] == ([] if how == "deleted" else [True])
    assert consumer.missing().get(again.outbox.epoch, set()) == set()


def test_an_outbox_deleted_under_the_daemon_is_noticed(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    sync = start_sync(mosquitto.port)
    numbers = set(line.parts(20))
    until(lambda: complete(consumer, numbers))
    first = sync.outbox.epoch
    for file in state.glob("outbox.db*"):
        file.unlink()
    until(lambda: sync.outbox.epoch != first)
    numbers |= set(line.parts(20))
    until(lambda: complete(consumer, numbers))
    assert sync.report()["link"]["connects"] == 2, "acknowledgements of the old numbers must not reach the new ones"


def test_a_state_folder_deleted_under_the_daemon_costs_nothing_that_waited(
    state: Path, mosquitto: Broker, proxy: Proxy, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    proxy.refuse()
    sync = start_sync(proxy.port)
    numbers = set(line.parts(50))
    assert not sync.post("door.opened", {"n": 1}, wait_s=0.0) and sync.post("door.closed", {"n": 1}, wait_s=10.0)
    until(lambda: sync.outbox.waiting >= 100)
    first = sync.outbox.epoch
    shutil.rmtree(state.rename(state.with_name("gone")))
    until(lambda: sync.outbox.epoch != first)
    consumer = consume(mosquitto.port)
    proxy.listen_again()
    until(lambda: complete(consumer, numbers))
    until(lambda: not sync.outbox.waiting)
    until(lambda: len(consumer.of("epoch")) == 2 and len(consumer.of("event")) >= 3)
    opening = next(record["data"] for record in consumer.of("epoch") if record["seq"] == 1)
    assert opening["why"] == "removed" and opening["previous"] == first and opening["carried"] >= 103
    events = {event["data"]["event"] for event in consumer.of("event")}
    assert {"door.opened", "door.closed", "sync.new_epoch"} <= events and not consumer.of("drop")
    with pytest.raises(StorageError, match="another edge-runtime sync"):
        start_sync(proxy.port)  # the lock went with the folder, and was taken again


@pytest.mark.parametrize("name", ["outbox.db-wal", "outbox.db-shm"])
def test_a_log_deleted_under_the_daemon_is_mended_in_the_same_epoch(
    name: str,
    state: Path,
    mosquitto: Broker,
    proxy: Proxy,
    consume: Callable[..., Consumer],
    line: Line,
    start_sync: START,
) -> None:
    proxy.refuse()
    sync = start_sync(proxy.port)
    numbers = set(line.parts(50))
    until(lambda: sync.outbox.waiting >= 100)
    first = sync.outbox.epoch
    (state / name).unlink()
    until((state / name).exists)
    with sqlite3.connect(f"{(state / OUTBOX).as_uri()}?mode=ro", uri=True) as other:
        assert other.execute("SELECT count(*) FROM record").fetchone()[0] >= 101, "on the disk for everybody"
    other.close()
    consumer = consume(mosquitto.port)
    proxy.listen_again()
    until(lambda: complete(consumer, numbers))
    until(lambda: "sync.outbox_mended" in {event["data"]["event"] for event in consumer.of("event")})
    assert sync.outbox.epoch == first and consumer.missing() == {}


def test_a_second_sync_on_the_same_box_is_refused(mosquitto: Broker, start_sync: START, state: Path) -> None:
    start_sync(mosquitto.port)
    with pytest.raises(StorageError, match="another edge-runtime sync"):
        start_sync(mosquitto.port)


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_steps_of_the_wall_clock_change_nothing_but_the_time_of_day(
    mosquitto: Broker, consume: Callable[..., Consumer], state: Path, closing: ExitStack, start_sync: START
) -> None:
    wall = {"offset_ns": 0}

    def utc_ns() -> int:
        return time.time_ns() + wall["offset_ns"]

    line = Line(state, utc_ns=utc_ns)
    closing.callback(line.stop)
    consumer = consume(mosquitto.port)
    sync = start_sync(mosquitto.port, options={"utc_ns": utc_ns}, metrics_every_s=0.2)
    numbers: set[int] = set()
    for offset_s in (0, -3 * 365 * 86_400, 40 * 86_400, 0):
        wall["offset_ns"] = offset_s * SECOND
        line.journal._wall.refresh()
        numbers.update(line.parts(20))
        until(lambda: complete(consumer, numbers))
    assert sync.flush(10) and consumer.missing() == {} and not consumer.repeats
    decisions = sorted(consumer.of("decision"), key=lambda record: record["seq"])
    stamps = [record["monotonic_ns"] for record in decisions]
    assert stamps == sorted(stamps)
    assert len({record["time"][:7] for record in decisions}) >= 3
    assert {record["time_quality"] for record in decisions} <= {"synced", "free_running"}
    assert sync.health().state is State.OK
