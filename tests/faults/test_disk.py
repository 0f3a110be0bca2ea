"""Bad disks: full, read-only, locked, gone, damaged. Records wait, losses are counted, recovery needs nobody."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.core.messages import Cause, Decision, PartKey, Trigger, Verdict
from edge_runtime.flow.components import State
from edge_runtime.recording import database, schema
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from tests.faults.journal_rig import fill

INFO = RunInfo(model="scratch@1", model_digest="digest")
FLUSH_S = 10.0


def part(journal: Journal, number: int, reason: str = "x") -> None:
    key, at_ns = PartKey(1, number), SECOND + number
    journal.triggered(Trigger(key, number, at_ns))
    journal.decided(
        Decision(key, Verdict.REJECT, Cause.MODEL, reason, 0.9, at_ns, at_ns, at_ns, "scratch@1"), None, None
    )


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., Journal]:
    def started(path: Path, **options: object) -> Journal:
        journal = Journal(path, INFO, **options)  # type: ignore[arg-type]
        request.addfinalizer(journal.stop)
        journal.start()
        return journal

    return started


def test_a_full_disk_is_lived_through(small_disk: Path, start: Callable[..., Journal]) -> None:
    journal = start(small_disk / "journal.db")
    part(journal, 1)
    assert journal.flush(FLUSH_S)
    ballast = small_disk / "ballast"
    fill(ballast)
    number = 1
    while journal.flush(FLUSH_S):
        number += 1
        part(journal, number, "a long reason " * 50)
        assert number < 2000
    health = journal.health()
    assert health.state is State.DEGRADED and "no room" in health.detail and "free some space" in health.detail
    part(journal, number + 1)
    ballast.unlink()
    assert journal.flush(FLUSH_S)
    assert journal.health().state is State.OK and journal.lost.total() == 0
    with JournalReader(journal.path) as reader:
        assert [row.part_id for row in reader.parts()] == list(range(1, number + 2))
        assert [run["ended"] for run in reader.runs()] == ["open"], "the same run goes on"
        assert reader.counts()["undecided"] == 0


_LIMITED = """
import json, resource, sys
from pathlib import Path
from edge_runtime.core.messages import *
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]), RunInfo(), backlog=200)
journal.start()
put = 0
while journal.flush(10.0):
    put += 1
    journal.triggered(Trigger(PartKey(1, put), put, put))
for _ in range(500):
    put += 1
    journal.triggered(Trigger(PartKey(1, put), put, put))
health = journal.health()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
well = journal.flush(10.0)
journal.stop()
print(json.dumps({"put": put, "state": health.state, "detail": health.detail, "well": well, "lost": journal.lost}))
"""


def test_what_found_no_room_is_counted_in_the_journal_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    done = subprocess.run([sys.executable, "-c", _LIMITED, path], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["state"] == "failed" and "further ones are lost" in said["detail"] and said["well"]
    with JournalReader(path) as reader:
        losses = reader.losses()
        assert sum(loss["count"] for loss in losses) == said["lost"]["trigger"] > 0
        assert {(loss["what"], loss["why"]) for loss in losses} == {("trigger", "backlog_full")}
        assert reader.counts()["parts"] + said["lost"]["trigger"] == said["put"]


def test_a_read_only_file_system_is_told_and_lived_through(small_disk: Path, start: Callable[..., Journal]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    journal = start(small_disk / "journal.db")
    part(journal, 1)
    assert not journal.flush(FLUSH_S)
    assert journal.health().state is State.DEGRADED and "read-write" in journal.health().detail
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    part(journal, 2)
    assert journal.flush(FLUSH_S) and journal.health().state is State.OK
    with JournalReader(journal.path) as reader:
        assert reader.counts()["parts"] == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_a_folder_without_permission_is_told(tmp_path: Path, start: Callable[..., Journal]) -> None:
    tmp_path.chmod(0o555)
    journal = start(tmp_path / "journal.db")
    assert journal.health().state is State.DEGRADED and "permissions" in journal.health().detail
    tmp_path.chmod(0o755)
    part(journal, 1)
    assert journal.flush(FLUSH_S)


def test_a_file_in_place_of_the_folder_is_told_and_lived_through(tmp_path: Path, start: Callable[..., Journal]) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("")
    journal = start(in_the_way / "journal.db")
    part(journal, 1)
    assert not journal.flush(FLUSH_S)
    assert str(in_the_way) in journal.health().detail
    in_the_way.unlink()
    assert journal.flush(FLUSH_S) and journal.health().state is State.OK


def test_a_locked_journal_waits_for_the_other_program(
    tmp_path: Path, start: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_WAIT_S", 0.05)
    journal = start(tmp_path / "journal.db")
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    part(journal, 1)
    assert not journal.flush(FLUSH_S)
    assert journal.health().state is State.DEGRADED and "another program" in journal.health().detail
    other.execute("ROLLBACK")
    other.close()
    assert journal.flush(FLUSH_S) and journal.health().state is State.OK


@pytest.mark.parametrize("damage", ["all of it", "all but the first page", "half of it", "emptied"])
def test_a_damaged_journal_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, start: Callable[..., Journal], damage: str
) -> None:
    path = tmp_path / "journal.db"
    first = start(path)
    for number in range(1, 300):
        part(first, number)
    first.stop()
    content = bytearray(path.read_bytes())
    if damage == "emptied":
        content.clear()
    elif damage == "half of it":
        del content[len(content) // 2 :]
    else:
        begin = 0 if damage == "all of it" else 4096
        content[begin:] = b"\xa5" * (len(content) - begin)
    path.write_bytes(content)
    second = start(path)
    for number in range(1, 50):
        part(second, number)
    assert second.flush(FLUSH_S)
    health = second.health()
    assert "299 parts that were on the disk are not in the journal" in health.detail
    assert health.state is (State.DEGRADED if damage == "emptied" else State.OK)  # nowhere, or in the file beside
    with JournalReader(path) as reader:
        assert {row.part_id for row in reader.parts()} >= set(range(1, 50))
        kinds = [event["kind"] for event in reader.events()]
        assert reader.problems() == []
    if damage != "emptied":  # an empty file is a valid, empty database
        assert "journal.set_aside" in kinds
        assert [(tmp_path / name).is_file() for name in second.quarantined] == [True]


def test_a_journal_of_a_newer_version_is_kept_and_not_touched(tmp_path: Path, start: Callable[..., Journal]) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    journal = start(path)
    part(journal, 1)
    assert journal.flush(FLUSH_S)
    assert journal.quarantined[0].startswith("journal.newer-")


def test_a_journal_deleted_under_the_writer_begins_anew(tmp_path: Path, start: Callable[..., Journal]) -> None:
    clock = ManualClock()
    journal = start(tmp_path / "journal.db", clock=clock)
    part(journal, 1)
    assert journal.flush(FLUSH_S)
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    clock.advance_ms(11_000)
    part(journal, 2)
    assert journal.flush(FLUSH_S)
    part(journal, 3)
    assert journal.flush(FLUSH_S) and journal.health().state is State.OK
    with JournalReader(journal.path) as reader:
        assert {row.part_id for row in reader.parts()} >= {3}


def test_a_fault_in_the_writer_itself_costs_one_group_and_is_counted(
    tmp_path: Path, start: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = start(tmp_path / "journal.db")
    assert journal._file.writer
    real, faults = journal._file.writer.write_group, iter([True])

    def faulty(*args: object) -> object:
        if next(faults, False):
            raise KeyError("a bug")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(journal._file.writer, "write_group", faulty)
    part(journal, 1)
    journal.flush(FLUSH_S)
    part(journal, 2)
    assert journal.flush(FLUSH_S)
    assert journal.health().state is State.OK
    with JournalReader(journal.path) as reader:
        assert sum(loss["count"] for loss in reader.losses()) == 4 - 2 * reader.counts()["parts"]
