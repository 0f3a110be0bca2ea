"""The demo with its broker: a subscriber receives every record of it; without the broker it works and says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_runtime.commissioning.demo_broker import Broker, broker_program
from edge_runtime.core.errors import DeviceError
from edge_runtime.sync.outbox.schema import open_outbox
from tests.support.waiting import until

LIGHT = ("--set", "camera.width=320", "--set", "camera.height=180", "--set", "world.parts_per_s=20")


def demo(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", "demo", *LIGHT, "--set", f"recording.state_dir={folder}", *words],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env},
    )  # fmt: skip


needs_broker = pytest.mark.skipif(
    broker_program() is None or find_spec("paho") is None, reason="needs pip install 'edge-runtime[demo]'"
)


@needs_broker
def test_it_ends_with_what_a_subscriber_received(tmp_path):
    done = demo(tmp_path, "--parts", "12", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    uplink = document["uplink"]
    assert document["parts"] == 12
    assert (uplink["kinds"]["decision"], uplink["kinds"]["outcome"], uplink["waiting"]) == (12, 12, 0)
    assert [(epoch["first"], epoch["holes"]) for epoch in uplink["epochs"]] == [(1, 0)]
    assert (uplink["tags"]["NBIRTH"], uplink["tags"]["NDEATH"]) == (1, 1)
    again = demo(tmp_path, "--parts", "5")
    assert "a subscriber received" in again.stdout and " 0 holes" in again.stdout
    assert left_behind(tmp_path) == []


@needs_broker
def test_the_outbox_of_a_station_is_left_alone(tmp_path):
    open_outbox(tmp_path / "outbox.db", "0a1b").close()
    before = (tmp_path / "outbox.db").read_bytes()
    done = demo(tmp_path, "--parts", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert "no uplink in this demo" in done.stderr and "outbox.db is a station's own" in done.stderr
    assert (tmp_path / "outbox.db").read_bytes() == before and json.loads(done.stdout)["uplink"] is None


@needs_broker
def test_what_it_started_ends_with_it(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "demo", *LIGHT, "--set", f"recording.state_dir={tmp_path}", "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until((tmp_path / "sync.sock").exists, 60)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert left_behind(tmp_path) == []


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still speak of this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if entry.name.isdigit() and str(folder) in line and int(entry.name) != os.getpid():
            found.append(line)
    return found


def test_without_the_broker_it_works_and_says_so_in_one_line(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    script = (
        "import sys, edge_runtime.commissioning.demo_uplink as uplink\n"
        "uplink.broker_program = lambda: None\n"
        "from edge_runtime.cli.main import main\nmain(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "demo", *LIGHT, "--set", f"recording.state_dir={tmp_path}", "--parts", "3",
         "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["uplink"]) == (0, None)
    assert [line for line in done.stderr.splitlines() if "edge-runtime[demo]" in line] == [
        "no uplink in this demo: pip install 'edge-runtime[demo]' brings a broker and an MQTT client"
    ]


def test_a_broker_that_does_not_start_is_an_error_with_its_words():
    broker = Broker("/bin/false")
    with pytest.raises(DeviceError, match="did not start"):
        broker.start()
