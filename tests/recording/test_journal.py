"""The journal as a component: durable when it says so, through SIGKILL, beside readers, and cheap for the line."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.messages import Event, Verdict
from edge_runtime.flow.components import State
from edge_runtime.recording import wall_clock
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo

INFO = RunInfo({"a": 1}, "config-digest", "scratch@1", "model-digest", {"python": "3"})
FLUSH_S = 10.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state" / "journal.db", INFO)
    journal.start()
    yield journal
    journal.stop()


def whole(journal: Journal, part: Any) -> None:
    journal.triggered(part.trigger)
    journal.decided(part.decision, None, part.prediction)
    journal.ended(part.report)


def test_what_was_flushed_can_be_read(journal: Journal, make_part: Callable[..., Any]) -> None:
    whole(journal, make_part(1, Verdict.REJECT, score=0.93))
    journal.happened(Event("link.lost", 5, {"port": "x"}))
    journal.kept(make_part(1).key, "evidence/1.jpg")
    assert journal.flush(FLUSH_S)
    with JournalReader(journal.path) as reader:
        (row,) = reader.newest(5)
        assert (row.verdict, row.outcome, row.evidence) == ("reject", "fired", "evidence/1.jpg")
        assert row.regions == make_part(1, score=0.93).prediction.regions and row.timings_ms["invoke"] == 1.25
        assert [event["kind"] for event in reader.events()] == ["link.lost"]


def test_stop_writes_what_waits_and_ends_the_run_in_good_order(journal: Journal, make_part: Callable[..., Any]) -> None:
    for number in range(1, 200):
        whole(journal, make_part(number))
    journal.stop()
    assert journal.waiting == 0 and journal.health().state is State.STOPPED
    with JournalReader(journal.path) as reader:
        assert reader.counts()["parts"] == 199 and reader.counts()["undecided"] == 0
        (run,) = reader.runs()
        assert run["ended"] == "clean" and run["config"] == {"a": 1} and run["model_digest"] == "model-digest"


def test_stop_is_safe_twice_and_without_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", INFO)
    journal.stop()
    journal.start()
    journal.stop()
    journal.stop()


def test_a_group_is_committed_without_anybody_asking(journal: Journal, make_part: Callable[..., Any]) -> None:
    whole(journal, make_part(1))
    with journal._settled:
        assert journal._settled.wait_for(lambda: journal.durable == 3, FLUSH_S)
    assert journal.commits <= 2


def test_a_burst_is_committed_in_groups(journal: Journal, make_part: Callable[..., Any]) -> None:
    for number in range(1, 401):
        whole(journal, make_part(number))
    assert journal.flush(FLUSH_S)
    assert journal.commits <= 40 and journal.durable == 1200


def test_two_journals_never_write_the_same_file(journal: Journal, make_part: Callable[..., Any]) -> None:
    journal.triggered(make_part(1).trigger)
    assert journal.flush(FLUSH_S)
    second = Journal(journal.path, INFO)
    second.start()
    assert second.health().state is State.DEGRADED and "another program" in second.health().detail
    second.stop()
    with JournalReader(journal.path) as reader:
        assert [row.verdict for row in reader.newest(5)] == [None]  # the part on its way was left alone


def test_readers_see_whole_groups_while_the_writer_writes(journal: Journal, make_part: Callable[..., Any]) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def watch() -> None:
        try:
            seen = 0
            with JournalReader(journal.path) as reader:
                while not done.is_set():
                    counts = reader.counts()
                    assert counts["parts"] >= seen
                    assert sum(counts["verdicts"].values()) + counts["undecided"] == counts["parts"]
                    seen = counts["parts"]
        except BaseException as err:
            failures.append(err)

    readers = [threading.Thread(target=watch) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 1001):
        whole(journal, make_part(number))
    assert journal.flush(FLUSH_S)
    done.set()
    for reader in readers:
        reader.join(FLUSH_S)
    assert not failures and not journal.lost


def test_a_record_costs_the_line_less_than_100_us(journal: Journal, make_part: Callable[..., Any]) -> None:
    parts = [make_part(number) for number in range(1, 301)]
    begun = time.thread_time_ns()
    for part in parts:
        whole(journal, part)
    assert (time.thread_time_ns() - begun) / 900 < 100_000


def test_health_says_in_words_that_retention_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "TIMESYNC_FLAG", tmp_path / "missing")
    monkeypatch.setattr(wall_clock, "_kernel_is_synced", lambda: False)
    journal = Journal(tmp_path / "journal.db", INFO)
    journal.start()
    health = journal.health()
    assert (health.state, health.detail) == (State.OK, "retention waits: the clock is not synchronised")
    assert journal.report()["retention"] == {
        "says": "waits, the clock is not synchronised",
        "removed": {},
        "clock_steps": 0,
    }
    journal.stop()


def test_a_step_while_nothing_ran_is_an_event_of_the_next_run(tmp_path: Path) -> None:
    for off_ns in (0, 500 * 86_400 * 10**9):
        journal = Journal(tmp_path / "journal.db", INFO, utc_ns=lambda off_ns=off_ns: time.time_ns() + off_ns)
        journal.start()
        assert journal.flush(FLUSH_S)
        journal.stop()
    with JournalReader(journal.path) as reader:
        (event,) = reader.events()
        assert event["kind"] == "clock.stepped" and event["run"] == 2
        assert event["detail"]["where"] == "restart" and event["detail"]["by_s"] == pytest.approx(43_200_000, abs=1)


_WRITER = """
import sys
from contextlib import closing
from pathlib import Path
from edge_runtime.core.messages import *
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo
journal = Journal(Path(sys.argv[1]), RunInfo(model="m@1"))
journal.start()
boot = int(sys.argv[2])
for number in range(1, 1_000_000):
    key = PartKey(boot, number)
    journal.triggered(Trigger(key, number, number))
    if number > 3:  # decisions and reports lag behind their triggers
        done = PartKey(boot, number - 3)
        decision = Decision(done, Verdict.REJECT, Cause.MODEL, "x", 0.9, number, number, number, "m@1")
        journal.decided(decision, None, None)
        journal.ended(GateReport(done, Outcome.FIRED, number, number))
    if number % 7 == 0 and journal.flush(10.0):
        print(number, flush=True)
"""


def test_sigkill_at_any_moment_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    kills = 12
    flushed: dict[int, int] = {}
    for boot in range(1, kills + 1):
        command = [sys.executable, "-c", _WRITER, str(path), str(boot)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            for _ in range(3 * boot):
                flushed[boot] = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
    journal = Journal(path, INFO)
    journal.start()
    assert journal.health().state is State.OK
    journal.stop()
    with JournalReader(path) as reader:
        rows = list(reader.parts())
        assert reader.problems() == []
        assert [run["ended"] for run in reader.runs()] == ["crashed"] * kills + ["clean"]
    for boot, newest in flushed.items():
        of_boot = {row.part_id: row for row in rows if row.boot_id == boot}
        assert set(range(1, newest + 1)) <= set(of_boot)
        assert all(of_boot[number].outcome == "fired" for number in range(1, newest - 3 + 1))
        assert len(of_boot) == max(of_boot), "no part is missing in the middle, none is there twice"
    assert all(row.verdict for row in rows)
    unsure = [row for row in rows if row.verdict == "unsure"]
    assert unsure and all(row.cause == "link_fault" and row.recovered for row in unsure)


def test_the_journal_does_not_import_numpy_or_pydantic() -> None:
    heavy = "import sys, edge_runtime.recording.reader, edge_runtime.recording.journal; print({m for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True, env=os.environ)
    assert "'numpy'" not in found.stdout and "'pydantic'" not in found.stdout


@pytest.mark.parametrize("parts", [1, 5, 70, 200])
def test_a_decision_counts_as_recorded_only_when_a_reader_finds_it(
    journal: Journal, make_part: Callable[..., Any], parts: int
) -> None:
    """Somebody else holds the file, as a full disk would: seconds in which the box has decided and nothing is kept."""
    assert journal.flush(FLUSH_S)
    keys = [make_part(number).key for number in range(1, parts + 1)]
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, parts + 1):
            whole(journal, make_part(number, Verdict.REJECT, score=0.9))
        assert not any(journal.is_recorded(key) for key in keys)
        other.execute("ROLLBACK")
    assert journal.flush(FLUSH_S)
    with JournalReader(journal.path) as reader:
        found = {row.part_id for row in reader.newest(parts)}
    assert all(journal.is_recorded(key) and key.part_id in found for key in keys[-24:])
    assert not journal.is_recorded(make_part(parts + 1).key)


def test_a_decision_for_which_there_was_no_room_is_never_told_as_recorded(
    tmp_path: Path, make_part: Callable[..., Any]
) -> None:
    journal = Journal(tmp_path / "journal.db", INFO, backlog=4)
    for number in range(1, 9):
        whole(journal, make_part(number))
    journal.start()
    assert journal.flush(FLUSH_S)
    kept = [number for number in range(1, 9) if journal.is_recorded(make_part(number).key)]
    journal.stop()
    with JournalReader(journal.path) as reader:
        assert kept == [row.part_id for row in reader.newest(9) if row.verdict is not None and not row.recovered] == [1]


def test_a_part_that_was_decided_and_not_recorded_is_not_said_to_be_undecided(
    tmp_path: Path, make_part: Callable[..., Any]
) -> None:
    """The next start knows that no decision was recorded, and not whether there was one."""
    script = (
        "import os, sys; from tests.recording.test_journal import *; j = Journal(Path(sys.argv[1]), INFO); j.start();"
        "from tests.recording.conftest import *; from edge_runtime.core.messages import *; k = PartKey(5, 1);"
        "j.triggered(Trigger(k, 1, 1)); j.flush(9.0); other = sqlite3.connect(j.path, isolation_level=None);"
        "other.execute('BEGIN IMMEDIATE');"
        "j.decided(Decision(k, Verdict.REJECT, Cause.MODEL, 'x', 0.9, 1, 1, 1, 'scratch@1'), None, None);"
        "print(j.is_recorded(k), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "journal.db"
    command = [sys.executable, "-c", script, str(path)]
    killed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert killed.stdout == "False\n" and killed.returncode == -signal.SIGKILL, killed.stderr
    journal = Journal(path, INFO)
    journal.start()
    journal.stop()
    with JournalReader(path) as reader:
        (row,) = reader.newest(1)
    assert row.recovered and row.reason == "the box stopped before a decision was recorded"
