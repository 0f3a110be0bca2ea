"""What a run cannot write before it ends is said at its end and counted by the next start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.core.messages import Cause, Decision, Event, PartKey, Trigger, Verdict
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from tests.faults.journal_rig import INFO, fill

FLUSH_S = 10.0
LIMIT_S = 90
MORE = 300  # parts of a kilobyte: more than what a small commit still finds room for
START = Callable[[Path], Journal]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> START:
    def started(path: Path) -> Journal:
        journal = Journal(path, INFO)
        request.addfinalizer(journal.stop)
        journal.start()
        return journal

    return started


def part(journal: Journal, number: int) -> None:
    key = PartKey(1, number)
    journal.triggered(Trigger(key, number, number))
    reason = "a long reason " * 50
    decision = Decision(key, Verdict.REJECT, Cause.MODEL, reason, 0.9, number, number, number, "scratch@1")
    journal.decided(decision, None, None)


def fill_until_it_refuses(journal: Journal, disk: Path) -> int:
    """The number of the last part that was given to it."""
    fill(disk / "ballast")
    for number in range(1, 2000):
        part(journal, number)
        if not journal.flush(FLUSH_S):
            return number
    raise AssertionError("the disk never became full")


def test_parts_that_a_full_disk_kept_out_are_counted_by_the_next_start(small_disk: Path, start: START) -> None:
    path = small_disk / "journal.db"
    journal = start(path)
    last = fill_until_it_refuses(journal, small_disk)
    for number in range(last + 1, last + MORE + 1):
        part(journal, number)
    journal.happened(Event("link.lost", 5, {"port": "x"}))
    journal.stop()
    unwritten = journal.unwritten
    assert unwritten >= 40  # some may have found room after all
    (small_disk / "ballast").unlink()
    for _ in range(2):  # the second time nothing is left to tell
        start(path).stop()
        with JournalReader(path) as reader:
            lost = {loss["what"]: loss["count"] for loss in reader.losses() if loss["why"] == "unwritten"}
            assert reader.counts()["parts"] + unwritten == last + MORE
            assert lost == {"trigger": unwritten, "decision": unwritten, "event": 1}
            (told,) = [event["detail"] for event in reader.events() if event["kind"] == "journal.unwritten"]
            assert told["parts"] == unwritten


def test_what_was_written_after_all_is_not_counted(small_disk: Path, start: START) -> None:
    path = small_disk / "journal.db"
    journal = start(path)
    fill_until_it_refuses(journal, small_disk)
    (small_disk / "ballast").unlink()
    assert journal.flush(FLUSH_S)
    journal.stop()
    assert journal.unwritten == 0
    start(path).stop()
    with JournalReader(path) as reader:
        assert reader.losses() == [] and reader.events() == []


def test_a_run_on_a_full_disk_says_so_at_its_end(small_disk: Path, tmp_path: Path) -> None:
    settings = {
        "recording.state_dir": small_disk,
        "service.socket": tmp_path / "c.sock",
        "recording.evidence": "false",
        "camera.width": 640,
        "camera.height": 360,
        "world.parts_per_s": 20,
    }
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "edge_runtime", "--config", "embedded", *pairs, "run", "--parts", "40", "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr
        next(line for line in run.stderr if "ready station" in line)
        fill(small_disk / "ballast")
        out, err = run.communicate(timeout=LIMIT_S)
    finally:
        run.kill()
    summary = json.loads(out)
    assert (run.returncode, summary["unaccounted"]) == (1, 0)
    assert 0 < summary["unwritten"] <= 40 and "journal.lost" in err
    (small_disk / "ballast").unlink()
    done = subprocess.run([*command[:-2], "3", "--json"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, json.loads(done.stdout)["unwritten"]) == (0, 0), done.stderr
    with JournalReader(small_disk / "journal.db") as reader:
        (told,) = [event["detail"] for event in reader.events(100) if event["kind"] == "journal.unwritten"]
    assert told["parts"] == summary["unwritten"]
