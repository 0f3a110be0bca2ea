"""A box of version 0.1.0 is updated with all it has: station file, journal, outbox and model store work unchanged.

`tests/data/state_0_1_0` is what that version left on the disk after 12 parts of the simulated line and a broker that
was never there: the station file as it stood, the databases as SQL, the slots with a candidate.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Consumer

LEFT = Path(__file__).parents[1] / "data" / "state_0_1_0"
PARTS, MORE = 12, 4


@pytest.fixture
def box(tmp_path: Path, mosquitto: Broker) -> Callable[..., Any]:
    """The box after the update, reached as a technician reaches it: JSON of a command."""
    state = tmp_path / "state"
    shutil.copytree(LEFT, state)
    for name in ("journal", "outbox"):
        with sqlite3.connect(state / f"{name}.db") as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript((state / f"{name}.sql").read_text())
        db.close()
        (state / f"{name}.sql").unlink()
    text = (state / "station.toml").read_text()
    station = tmp_path / "station.toml"
    station.write_text(text.replace("/srv/box/state", str(state)).replace("port = 1\n", f"port = {mosquitto.port}\n"))

    def ask(*words: str | int, code: int = 0) -> Any:
        command = [sys.executable, "-m", "edge_runtime", "--config", str(station), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    return ask


def test_a_box_of_the_version_before_goes_on_with_all_it_has(
    box: Callable[..., Any], mosquitto: Broker, consume: Callable[..., Consumer]
) -> None:
    assert "warning" not in box("config", "check")
    before = {row["part"]: row for row in box("parts", "list", "--last", 100, "--json")}
    assert len(before) == PARTS and {row["cause"] for row in before.values()} == {"model"}
    (slot,) = [row for row in box("models", "list", "--json") if row["name"] == "scratch" and row["version"] == "1"]
    assert slot["slot"] == "candidate"

    summary = box("run", "--parts", MORE, "--json")
    assert summary["parts"] == MORE and not summary["unaccounted"] and not summary["unwritten"]
    after = {row["part"]: row for row in box("parts", "list", "--last", 100, "--json")}
    assert len(after) == PARTS + MORE
    assert {part: after[part]["verdict"] for part in before} == {part: row["verdict"] for part, row in before.items()}

    consumer = consume(mosquitto.port)
    assert "all delivered" in box("sync", "--once", "--timeout", 30)
    until(lambda: len(consumer.of("outcome")) >= PARTS + MORE)
    told = {record["data"]["part"]: record["data"]["verdict"] for record in consumer.of("decision")}
    assert told == {part: row["verdict"] for part, row in after.items()}
    assert not consumer.of("drop") and not consumer.of("loss")
