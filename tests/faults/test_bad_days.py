"""The whole daemon on the simulated line, on its bad days. Every part has one decision and one outcome, none passes
without an accept verdict, and the line is back at work without a human.

Each test runs the real `edge-runtime run` in a process of its own, with its own state folder, belt and controller.
"""

from __future__ import annotations

import json
import select
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = 60
LIMIT_S = 90  # for a machine that is busy with other things


class Station:
    """A box of its own in a folder; `run` gives the summary, `rows` what the journal holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = {
            "recording.state_dir": folder,
            "service.socket": folder / "c.sock",
            "recording.evidence": "false",
            "world.parts_per_s": 20,
            # what is drawn at full size costs more than the model, and the model looks at 640 x 360
            "camera.width": 640,
            "camera.height": 360,
            # a long way from eye to gate, so that a test machine with other work does not add faults of its own
            "controller.decide_counts": 2800,
            "controller.fire_counts": 3000,
            "decision.deadline_ms": 1200,
            "decision.stage_budget_ms": 400,
        }

    def command(self, *words: str, **settings: object) -> list[str]:
        given = {**self.base, **{key.replace("__", "."): value for key, value in settings.items()}}
        pairs = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "edge_runtime", "--config", "embedded", *pairs, *words]

    def run(self, parts: int = PARTS, **settings: object) -> dict:
        done = subprocess.run(
            self.command("run", "--parts", str(parts), "--json", **settings),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        assert "error" not in document, done.stderr
        document["exit"] = done.returncode
        return document

    def parts_in_journal(self) -> int:
        try:
            return len(self.rows())
        except sqlite3.OperationalError:
            return 0  # not made yet

    def rows(self, where: str = "1") -> list[sqlite3.Row]:
        connection = sqlite3.connect(self.folder / "journal.db")
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(f"SELECT * FROM part WHERE {where} ORDER BY id").fetchall()
        finally:
            connection.close()


@pytest.fixture
def station(tmp_path):
    return Station(tmp_path)


def check(station: Station, summary: dict, parts: int = PARTS) -> None:
    """What holds on every day, good or bad."""
    assert summary["unaccounted"] == 0
    assert summary["exit"] == 0
    assert summary["parts"] == parts
    for counts in ("verdicts", "causes", "outcomes"):
        assert sum(summary[counts].values()) == parts
    assert summary["truth"]["stray"] == 0
    assert len(station.rows()) == parts
    assert station.rows("verdict IS NULL") == []
    assert station.rows("outcome = 'passed' AND verdict != 'accept'") == []


def wait_for(is_so, line: subprocess.Popen) -> None:
    """Poll until it is so; the simulated line's end is the limit."""
    while not is_so():
        assert line.poll() is None, "the line ended first"
        select.select([], [], [], 0.02)


def late_causes(station: Station, after: int) -> set[str]:
    return {row["cause"] for row in station.rows(f"part_id > {after}")}


def test_good_day(station):
    summary = station.run(world__parts_per_s=10, camera__width=320, camera__height=180)  # a day without haste, too
    check(station, summary)
    assert summary["causes"]["model"] > 0.9 * PARTS  # a busy test machine may keep the model from a part
    assert summary["outcomes"]["unknown"] == 0


def test_same_seed_same_decisions(station, tmp_path):
    again = Station(tmp_path / "again")
    again.folder.mkdir()
    decisions = []
    for box in (station, again):
        check(box, box.run(parts=40, world__seed=11), parts=40)
        decisions.append({row["part_id"]: (row["verdict"], row["score"]) for row in box.rows("cause = 'model'")})
    both = decisions[0].keys() & decisions[1].keys()  # a busy test machine may keep the model from a part
    assert len(both) > 30
    assert [decisions[0][part] for part in both] == [decisions[1][part] for part in both]


def test_half_again_too_many_parts_are_overload_and_never_lost(station):
    day = {"world__bad_days__engine": "slow", "world__bad_days__engine_fault_every": 1}
    summary = station.run(world__bad_days__engine_slow_ms=75, **day)  # 20 parts/s x 75 ms = 150 %
    check(station, summary)
    assert summary["causes"]["overload"] + summary["causes"]["deadline"] > 5
    assert summary["causes"]["model"] > PARTS / 3  # overload costs the excess, not the line


def test_dropped_frames_are_no_frame(station):
    summary = station.run(world__bad_days__drop_frames=0.3)
    check(station, summary)
    assert summary["causes"]["no_frame"] > 5
    assert summary["causes"]["model"] > PARTS / 3


@pytest.mark.parametrize("day", ["lose_acks=0.3", "flip_bytes=0.01"])
def test_bad_wire_loses_no_part(station, day):
    key, value = day.split("=")
    summary = station.run(**{f"world__bad_days__{key}": value})
    check(station, summary)
    assert summary["causes"]["model"] > PARTS / 2


@pytest.mark.parametrize("fault", ["hang", "raise", "garbage"])
def test_engine_fault_costs_its_part_only(station, fault):
    day = {"world__bad_days__engine": fault, "world__bad_days__engine_fault_every": 15}
    summary = station.run(world__parts_per_s=10, **day)  # slow enough that a hang and a new engine fill no queue
    check(station, summary)
    assert summary["causes"]["engine_fault"] >= 3
    assert summary["causes"]["model"] >= PARTS - 12  # a hang holds up those behind it for one stage budget
    assert all(row["outcome"] != "passed" for row in station.rows("cause = 'engine_fault'"))


def test_camera_that_stops_comes_back(station):
    summary = station.run(
        parts=100, camera__lost_after_s=0.5, world__bad_days__camera_stops_at=20, world__bad_days__camera_stops_for=40
    )
    check(station, summary, parts=100)
    assert summary["causes"]["no_frame"] >= 20
    assert "model" in late_causes(station, after=80)


def test_sigterm_ends_in_good_order(station):
    daemon = subprocess.Popen(
        station.command("run", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in daemon.stderr:
            if '"ready' in line or "ready station" in line:
                break
        daemon.send_signal(signal.SIGTERM)
        out, _ = daemon.communicate(timeout=LIMIT_S)
    finally:
        daemon.kill()
    summary = json.loads(out)
    assert (daemon.returncode, summary["unaccounted"]) == (0, 0)
    assert not (station.folder / "c.sock").exists()


def test_second_daemon_on_the_same_state_is_refused(station):
    daemon = subprocess.Popen(station.command("run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in daemon.stderr:
            if "ready station" in line:
                break
        second = subprocess.run(
            station.command("run", "--parts", "1"), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    finally:
        daemon.terminate()
        daemon.communicate(timeout=LIMIT_S)
    assert second.returncode == 1
    assert "is in use by a running edge-runtime" in second.stderr and "Traceback" not in second.stderr


def test_state_folder_that_cannot_be_written_is_a_sentence(station):
    command = station.command("run", "--parts", "1", recording__state_dir="/proc/edge-runtime")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2 and "cannot use state folder /proc/edge-runtime" in done.stderr


def test_daemon_killed_in_mid_run_takes_up_the_line_again(station):
    """The belt and the controller go on while nobody is there: those parts are rejected, and told of afterwards."""
    parts = 160
    line_dir = station.folder / "line"
    tool = Path(__file__).parents[2] / "tools" / "sim" / "line"
    gate = ["--controller", "decide_counts=2800", "--controller", "fire_counts=3000"]
    words = ["--dir", str(line_dir), "--parts", str(parts), "--set", "parts_per_s=20", *gate, "--json"]
    line = subprocess.Popen(
        [sys.executable, str(tool), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    daemons = []
    try:
        assert line.stderr.readline().startswith("controller ")
        command = station.command("run", camera__sim__attach=line_dir / "camera.sock")
        daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for(lambda: station.parts_in_journal() >= 50, line)
        daemons[0].kill()
        daemons[0].wait(LIMIT_S)
        daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        truth, _ = line.communicate(timeout=LIMIT_S)
        daemons[-1].terminate()
        assert daemons[-1].wait(LIMIT_S) == 0
    finally:
        for process in (line, *daemons):
            process.kill()
            process.wait()
    truth = json.loads(truth)
    rows = {(row["boot_id"], row["part_id"]): row for row in station.rows()}
    assert len(rows) == len(station.rows()) == parts == len(truth["parts"])
    assert truth["stray"] == 0
    for part in truth["parts"]:
        row = rows[part["boot_id"], part["part_id"]]
        assert row["verdict"] is not None
        assert part["fired"] or row["verdict"] == "accept"
    causes = {row["cause"] for row in rows.values()}
    assert "model" in causes and causes & {"link_fault", "no_frame"}  # by how long the box was away
    assert sum(row["cause"] == "model" for row in station.rows()[-30:]) > 15  # a busy test machine may be late for some


@pytest.mark.parametrize(
    "settings",
    [
        {"camera__driver": "folder", "camera__path": "/nowhere"},
        {"camera__driver": "v4l2", "camera__path": "/dev/video99"},
        {"controller__driver": "serial", "controller__port": "/dev/ttyNONE"},
    ],
)
def test_missing_device_is_named_and_waited_for(station, settings):
    """A box that starts before its camera is plugged in must not stay down: it says what is missing and tries again."""
    command = station.command("run", "--seconds", "2", "--json", **settings)
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert list(settings.values())[1] in done.stderr and "Traceback" not in done.stderr
    assert (done.returncode, json.loads(done.stdout)["unaccounted"]) == (0, 0)
    assert json.loads(done.stdout)["verdicts"]["accept"] == 0


def test_unknown_model_is_a_sentence_with_the_nearest_name(station):
    command = station.command("run", "--parts", "1", model__name="scrath")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert "scratch" in done.stderr and "Traceback" not in done.stderr
