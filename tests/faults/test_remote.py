"""The real line, the real `serve` and a real inference server, on the server's bad days.

No part is late, each is decided by one of the two models and says by which, and when the server is back it is asked
again: nobody does anything. The box of the first test lives through all of them, one after the other.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.remote_standing import Standing
from edge_runtime.core.state import State
from edge_runtime.core.status import RemoteReport, Status
from edge_runtime.recording.reader import JournalReader, PartRow
from tests.support.real_box import RealBox, running_box
from tests.support.v2_server import Peer, start
from tests.support.waiting import until

DEADLINE_MS = 1200
MODEL = Path("models/scratch/1/model.tflite")
# a long way from eye to gate, so that a test machine with other work does not add faults of its own
BOX = (
    "recording.evidence=false", "controller.decide_counts=2800", "controller.fire_counts=3000",
    f"decision.deadline_ms={DEADLINE_MS}", "decision.stage_budget_ms=400",
    'model.predictor="remote"', "model.remote.share=0.25",
)  # fmt: skip
FAILED = ("late", "refused", "wrong", "unreachable")


def settings(port: int, may_leave: str = "true") -> list[str]:
    return [*BOX, f'model.remote.url="http://127.0.0.1:{port}"', f"model.remote.may_leave={may_leave}"]


@contextlib.contextmanager
def serve_of(box: RealBox) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        box.command("serve", "--port", "0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(shot: Status) -> RemoteReport:
    assert shot.report.remote is not None
    return shot.report.remote


def failures(shot: Status) -> int:
    return sum(getattr(told(shot), name) for name in FAILED)


def comes_back(box: RealBox) -> Status:
    """When more parts were answered by the server than by now."""
    before = told(box.look()).answered
    shot = box.until(lambda shot: told(shot).answered > before + 2 and shot.health["remote"].state is State.OK)
    standing = told(shot).standing
    assert standing is not None and standing.last_answer_s is not None and standing.allowed_ms == 0.25 * DEADLINE_MS
    return shot


def is_left_alone(box: RealBox, before: Status) -> Status:
    """When the server has failed, and parts pass that it is not asked about."""
    failed, resting = failures(before), told(before).resting
    # the end of `serve` between two questions is no failure of one: what counts is that parts pass without it
    shot = box.until(lambda shot: told(shot).phase == "resting" and told(shot).resting > resting + 2)
    standing = told(shot).standing
    assert standing is not None and standing.standing is Standing.RESTS and standing.failures > 0 and standing.why
    assert standing.next_try_s is not None and "rests until " in shot.health["remote"].detail
    assert failures(shot) - failed <= 12  # of trials and parts that were out: a few, and then none
    return shot


def test_no_part_is_late_and_the_server_is_asked_again_whatever_happens_to_it(tmp_path: Path) -> None:
    peer = start(MODEL, "scratch")
    try:
        with running_box(tmp_path / "state", *settings(peer.port)) as box:
            assert "start edge-runtime serve" in box.until(lambda shot: told(shot).trouble).health["remote"].detail
            with serve_of(box):
                shot = comes_back(box)
                for fault in ("hang", "slow", "wrong_shape", "redirect"):
                    peer.does(fault)
                    is_left_alone(box, shot)
                    peer.does()
                    shot = comes_back(box)
                with peer.stopped():
                    is_left_alone(box, shot)
                shot = comes_back(box)
                peer.kill()
                is_left_alone(box, shot)
                peer = start(MODEL, "scratch", "--port", str(peer.port))
                shot = comes_back(box)
            is_left_alone(box, shot)  # `serve` was killed
            with serve_of(box):
                comes_back(box)
                summary = box.end()
            rows = rows_of(box)
    finally:
        peer.kill()
    check(summary, rows, peer)


def rows_of(box: RealBox) -> list[PartRow]:
    with JournalReader(box.state / "journal.db") as reader:
        return list(reader.parts())


def check(summary: dict[str, Any], rows: list[PartRow], peer: Peer) -> None:
    """A busy test machine may keep the model from a part; those that a model judged, either one, are in time."""
    assert (summary["unaccounted"], summary["unwritten"], summary["parts"]) == (0, 0, len(rows))
    by_model = [row for row in rows if row.cause == "model"]
    assert len(by_model) > 0.8 * len(rows) and summary["late"] <= len(rows) - len(by_model)
    assert max(row.trigger_to_verdict_ms or 0.0 for row in by_model) <= DEADLINE_MS
    counted, there = summary["origins"], f"remote:scratch/7@127.0.0.1:{peer.port}"
    assert Counter(row.origin for row in by_model) == {"local": counted["local"], there: counted["remote"]}
    assert {row.model for row in rows} == {"scratch@1"} and min(counted.values()) > 10
    remote = summary["remote"]
    assert remote["asked"] == remote["answered"] + sum(remote[name] for name in FAILED)
    assert remote["disagreed"] == 0 < remote["agreed"]  # it is the same model
    assert all(remote[name] > 0 for name in FAILED)


def test_no_picture_leaves_unless_the_station_says_so(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        listening(tmp_path / "state" / "picture.sock") as relay,
        running_box(tmp_path / "state", *settings(server.getsockname()[1], "false")) as box,
    ):
        box.until(lambda shot: shot.parts > 5)
        with pytest.raises(BlockingIOError):
            relay.accept()  # not even `serve` is told of a picture
        relay.close()
        (box.state / "picture.sock").unlink()
        with serve_of(box):
            judges_alone(box, server)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Where `serve` would listen for the line."""
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        made.setblocking(False)
        yield made


def judges_alone(box: RealBox, server: socket.socket) -> None:
    until((box.state / "picture.sock").exists)
    seen = box.look().parts
    shot = box.until(lambda shot: shot.parts > seen + 5)
    health = shot.health["remote"]
    assert health.state is State.DEGRADED and "pictures stay in the box" in health.detail
    assert shot.report.remote is None and {part.origin for part in shot.recent} - {""} == {"local"}
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()  # nobody has even knocked
