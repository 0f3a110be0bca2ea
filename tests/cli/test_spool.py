"""`edge-runtime spool`: what waits is told whether anybody delivers it or not, and waiting for it has an end."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing as closing_db
from pathlib import Path

import pytest

from edge_runtime.core.errors import StorageError
from edge_runtime.sync.outbox.status import spool_status, wait_until_delivered
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Line, mosquitto_program
from tests.sync.uplink_rig import Process, edge_runtime, is_up, station


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site(tmp_path, closing):
    """A station with an uplink that runs, a line that is written by hand, and a broker that is down."""
    if not mosquitto_program():
        pytest.skip("needs mosquitto")
    broker = Broker("mosquitto", tmp_path / "broker").start()
    closing.callback(broker.kill)
    broker.kill()
    file = station(tmp_path, {"port": broker.port})
    line = Line(tmp_path / "state")
    closing.callback(line.stop)
    process = Process(tmp_path, "sync", "--config", str(file), "sync")
    closing.callback(process.stop)
    until(lambda: is_up(tmp_path / "state" / "sync.sock"))
    return broker, file, line, process


def records(state: Path) -> int:
    """-1 while the outbox is being made."""
    try:
        return int(spool_status(state)["records"])
    except StorageError:
        return -1


def spool(file: Path, *words: str):
    return edge_runtime("spool", *words, "--config", str(file))


def test_what_waits_is_told_and_then_delivered(site, tmp_path):
    broker, file, line, _ = site
    line.parts(25)
    until(lambda: records(tmp_path / "state") >= 51)
    shot = json.loads(spool(file, "status", "--json").stdout)
    assert (shot["sync_runs"], shot["unread"], shot["live"]) == (True, 0, shot["records"])
    assert "no link to" in shot["uplink"]["detail"]
    text = spool(file, "status")
    assert (text.returncode, "records   " in text.stdout, "ago" in text.stdout) == (0, True, True)
    late = spool(file, "flush", "--timeout", "0.5")
    assert (late.returncode, "still wait: " in late.stderr) == (1, True)
    broker.start()
    done = spool(file, "flush")
    assert (done.returncode, done.stdout) == (0, "all delivered\n")


def test_a_line_that_goes_on_is_not_waited_for_for_ever(site, tmp_path):
    broker, _, line, _ = site
    broker.start()
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.01):
            line.parts(2)

    belt = threading.Thread(target=work)
    belt.start()
    try:
        until(lambda: line.made > 20)
        done = wait_until_delivered(tmp_path / "state", 20)
        assert done["delivered"]
    finally:
        is_over.set()
        belt.join()


def test_without_an_uplink_it_is_a_problem_and_the_fix_is_named(site, tmp_path):
    _, file, line, process = site
    line.parts(5)
    until(lambda: records(tmp_path / "state") > 0)
    process.stop()
    status = spool(file, "status")
    assert (status.returncode, "not running: edge-runtime sync" in status.stdout) == (1, True)
    flush = spool(file, "flush")
    assert (flush.returncode, "edge-runtime sync --once" in flush.stderr) == (1, True)


def test_a_box_that_never_had_an_uplink_says_so(tmp_path):
    done = spool(station(tmp_path, {}), "status")
    assert (done.returncode, "no outbox" in done.stderr) == (1, True)


def test_an_outbox_that_is_just_being_made_is_none_yet(tmp_path):
    (tmp_path / "outbox.db").touch()
    with pytest.raises(StorageError, match=r"no outbox at .* yet"):
        spool_status(tmp_path)


def test_an_outbox_of_a_newer_release_is_left_alone(tmp_path):
    with closing_db(sqlite3.connect(tmp_path / "outbox.db")) as db:
        db.executescript("CREATE TABLE meta (other); PRAGMA user_version = 99;")
    with pytest.raises(StorageError, match=r"of a newer release \(schema version 99"):
        spool_status(tmp_path)
