"""The reject path through every bad day, with the host build of the controller's core: link, port, wire, belt, gate.

A judge that knows which parts are defective compares the gate's movement with what arrived in time (see
`tools/bench/reject_judge.py`). Most runs are in simulated time; where processes or ptys are the point, they are real.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
from reject_faults import BY_NAME, FAULTS
from reject_judge import Judge
from reject_runs import GEOMETRY, VirtualRun, real_row

PARTS = 150
REAL = {"clean wire": 40, "host SIGSTOP 3 s": 125, "host SIGKILL, restart": 80, "cable pull, return": 90}


def check(fault, row, parts):
    assert row["parts"] == parts
    assert (row["missed"], row["false"], row["stray"], row["slipped"]) == (0, 0, 0, 0), row["why"]
    assert row["pulse_error_counts"] <= 1
    assert fault.shows(row), row


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_part_goes_wrong_on_a_bad_day(fault):
    check(fault, VirtualRun("host", fault, 2000, PARTS, 5, None).run(), PARTS)


@pytest.mark.parametrize(("name", "parts"), REAL.items(), ids=REAL)
def test_no_part_goes_wrong_between_real_processes(name, parts):
    fault = BY_NAME[name].sooner(4)
    row = real_row("host", fault, 4000, parts, 5, None)
    assert row["parts"] == parts
    assert (row["missed"], row["false"], row["stray"], row["slipped"]) == (0, 0, 0, 0), row["why"]
    assert row["pulse_error_counts"] <= 1
    assert row["passed"] > 0 and row["fired"] > 0  # how many default depends on how busy the machine is
    assert name == "clean wire" or row["defaulted"] > 0


@pytest.fixture(scope="module")
def run():
    run = VirtualRun("host", BY_NAME["clean wire"], 4000, 40, 2, None)
    run.run()
    return run


def test_the_matrix_prints_a_row_for_each_run():
    words = [ROOT / "tools/bench/reject_matrix", "--quick", "--json", "--core", "host", "--fault", "clean"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["fault"] == "clean wire" and row["parts"] == PARTS
    assert [row[kind] for kind in ("missed", "false", "stray", "defaulted")] == [0, 0, 0, 0]


class TestTheJudge:
    """A judge who never finds a fault is worth nothing: each kind of fault is put into a good run, and found."""

    def judge(self, run, truth):
        return Judge(truth, run.notes, GEOMETRY, run.seed)

    def row(self, run, truth):
        row = self.judge(run, truth).verdict()
        return {kind: row[kind] for kind in ("missed", "false", "stray", "slipped")}

    def pulses(self, run):
        edges = [fact for fact in run.truth if fact["ev"] == "gate"]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def moved(self, fact, counts):
        return {**fact, "quarter": fact["quarter"] + 4 * counts, "us": fact["us"] + 250 * counts}

    def good_part(self, run):
        return next(part for part in self.judge(run, run.truth).parts if not part.is_bad and part.index > 5)

    def test_finds_nothing_in_a_good_run(self, run):
        assert set(self.row(run, run.truth).values()) == {0}

    def test_finds_a_part_that_was_not_removed(self, run):
        on, off = self.pulses(run)[3]
        truth = [fact for fact in run.truth if fact is not on and fact is not off]
        assert self.row(run, truth) == {"missed": 1, "false": 0, "stray": 0, "slipped": 0}

    def test_finds_a_pulse_two_counts_late(self, run):
        on, _off = self.pulses(run)[3]
        truth = [self.moved(fact, 2) if fact is on else fact for fact in run.truth]
        assert self.row(run, truth)["missed"] == 1
        assert self.judge(run, truth).verdict()["pulse_error_counts"] == 2

    def test_finds_a_good_part_that_was_removed(self, run):
        part = self.good_part(run)
        at = part.quarter // 4 * 4 + 4 * GEOMETRY.fire_counts
        on = {"ev": "gate", "on": True, "moved": True, "quarter": at, "us": self._us(run, at), "edge_us": 0, "ns": 0}
        truth = sorted([*run.truth, on, self.moved({**on, "on": False}, 20)], key=lambda fact: fact["us"])
        assert self.row(run, truth) == {"missed": 0, "false": 1, "stray": 0, "slipped": 0}

    def test_finds_a_pulse_between_two_parts(self, run):
        part = self.good_part(run)
        at = part.quarter // 4 * 4 + 4 * (GEOMETRY.fire_counts - 30)
        on = {"ev": "gate", "on": True, "moved": True, "quarter": at, "us": self._us(run, at), "edge_us": 0, "ns": 0}
        truth = sorted([*run.truth, on, self.moved({**on, "on": False}, 10)], key=lambda fact: fact["us"])
        assert self.row(run, truth) == {"missed": 0, "false": 0, "stray": 1, "slipped": 0}

    def test_finds_a_part_that_passed_unvouched_for(self, run):
        part = self.good_part(run)
        heard = {us for us, _, _ in part.verdicts}
        truth = [fact for fact in run.truth if not (fact["ev"] == "rx" and fact["us"] in heard)]
        assert self.row(run, truth)["slipped"] == 1

    @staticmethod
    def _us(run, quarter):
        after = next(fact for fact in run.truth if fact["ev"] == "rx" and fact["quarter"] >= quarter)
        return after["us"]
