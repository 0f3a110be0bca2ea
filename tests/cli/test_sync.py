"""`edge-runtime sync` as a process: ready at once, gone at once, with and without a broker, a line or a clean disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_runtime.sync.commands.signatures import is_signed
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Consumer, Line, free_port, mosquitto_program
from tests.sync.uplink_rig import BASE, Process, edge_runtime, is_up, station


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def broker(tmp_path, closing) -> Broker:
    if not mosquitto_program():
        pytest.skip("needs mosquitto")
    made = Broker("mosquitto", tmp_path / "broker").start()
    closing.callback(made.kill)
    return made


@pytest.fixture
def start(tmp_path, closing):
    def make(file: Path, name: str = "sync", **env: str) -> Process:
        process = Process(tmp_path, name, "--config", str(file), "sync", env={**os.environ, **env})
        closing.callback(process.stop)
        return process

    return make


def state(file: Path) -> Path:
    return file.parent / "state"


def well(file: Path) -> bool:
    """Every part is well; a box that has recorded nothing yet has no journal to read."""
    shot = is_up(state(file) / "sync.sock")
    return bool(shot and shot["state"] == "ok")


def recorded(file: Path, parts: int = 3) -> Path:
    line = Line(state(file))
    line.parts(parts)
    line.stop()
    return file


def test_it_is_ready_at_once_and_ends_within_five_seconds_without_any_broker(tmp_path, start, closing):
    """An address that never answers is the worst case: a dial takes three seconds."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    closing.callback(notify.close)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(30)
    file = station(tmp_path, {"host": "192.0.2.1", "port": 1883})
    sync = start(file, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000")
    assert notify.recv(4096).startswith(b"READY=1")
    assert b"WATCHDOG=1" in notify.recv(4096)
    code, took_s = sync.terminate()
    assert (code, took_s < 5.0) == (0, True)
    said = [notify.recv(4096)]
    while b"STOPPING=1" not in said[-1]:
        said.append(notify.recv(4096))


def test_records_of_a_line_that_has_ended_are_delivered(tmp_path, start, broker, closing):
    consumer = Consumer(broker.port)
    closing.callback(consumer.close)
    file = station(tmp_path, {"port": broker.port})
    sync = start(recorded(file, 30))
    until(lambda: consumer.parts("outcome") == set(range(1, 31)), why="all parts")
    assert sync.terminate()[0] == 0
    until(lambda: consumer.states[-1]["state"] == "offline")
    assert (consumer.states[-1]["why"], consumer.missing()) == ("stopped", {})


def test_live_tags_are_born_and_die_with_it(tmp_path, start, broker, closing):
    consumer = Consumer(broker.port, topic="spBv1.0/#")
    closing.callback(consumer.close)
    seen: list[str] = []
    consumer._take = lambda client, _, message: seen.append(message.topic)  # type: ignore[method-assign]
    consumer._client.on_message = consumer._take
    file = station(tmp_path, {"port": broker.port, "sparkplug": {"group": "cell-5"}})
    sync = start(file)
    until(lambda: "spBv1.0/cell-5/NBIRTH/box-1" in seen and "spBv1.0/cell-5/DDEATH/box-1/line" in seen)
    sync.terminate()
    until(lambda: seen[-1] == "spBv1.0/cell-5/NDEATH/box-1")


def test_a_second_one_is_refused_and_says_what_to_do(tmp_path, start, broker):
    file = station(tmp_path, {"port": broker.port})
    start(recorded(file))
    until(lambda: well(file))
    second = edge_runtime("sync", "--config", str(file))
    assert second.returncode == 1
    assert "another edge-runtime sync runs" in second.stderr


def test_once_delivers_and_ends(tmp_path, broker, closing):
    consumer = Consumer(broker.port)
    closing.callback(consumer.close)
    file = station(tmp_path, {"port": broker.port})
    recorded(file, 10)
    done = edge_runtime("sync", "--once", "--config", str(file))
    assert (done.returncode, done.stdout.strip()) == (0, "all delivered"), done.stderr
    until(lambda: consumer.parts("decision") == set(range(1, 11)))


def test_once_that_cannot_deliver_says_so(tmp_path):
    file = station(tmp_path, {"port": free_port()})
    recorded(file)
    done = edge_runtime("sync", "--once", "--timeout", "1.5", "--config", str(file))
    assert done.returncode == 1
    assert re.search(r"not all delivered, \d+ parts .* not read yet: no link to .* records wait .*1\.5 s", done.stderr)


def test_once_without_an_outbox_says_why_there_is_none(tmp_path):
    file = station(tmp_path, {"port": free_port()})
    (state(file) / "outbox.db").mkdir(parents=True)
    done = edge_runtime("sync", "--once", "--timeout", "3", "--config", str(file))
    assert done.returncode == 1
    assert "not all delivered: the outbox in " in done.stderr.splitlines()[-1]


def test_a_station_without_an_uplink_is_told_so(tmp_path):
    done = edge_runtime("sync", "--config", "embedded", "--set", f"recording.state_dir={tmp_path}")
    assert (done.returncode, "sync.enabled is false" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("setting", "code"), [("sync.enabled=false", 1), ("sync.enabled=true", 0), ("sync.enbled=true", 0)]
)
def test_the_condition_of_the_unit_is_answered(setting, code):
    """A wrong station counts as yes: the daemon says what is wrong, where a condition would be silent."""
    assert edge_runtime("sync", "--condition", "--config", "embedded", "--set", setting).returncode == code


def test_status_tells_every_part_and_is_one_when_nobody_answers(tmp_path, start, broker):
    file = station(tmp_path, {"port": broker.port, "commands": "nonce"})
    nobody = edge_runtime("sync", "status", "--config", str(file))
    assert (nobody.returncode, "no uplink runs here" in nobody.stderr) == (1, True)
    start(recorded(file))
    until(lambda: well(file))
    text = edge_runtime("sync", "status", "--config", str(file))
    assert text.returncode == 0
    assert [line.split()[:2] for line in text.stdout.splitlines()[2:]] == [
        ["records", "ok"], ["tags", "ok"], ["commands", "ok"]]  # fmt: skip
    shot = json.loads(edge_runtime("sync", "status", "--json", "--config", str(file)).stdout)
    assert (shot["station"], shot["tags"]["phase"], shot["commands"]["proof"]) == ("box-1", "born", "nonce")


def test_it_lives_with_a_damaged_book_of_commands(tmp_path, start, broker):
    file = station(tmp_path, {"port": broker.port, "commands": "nonce"})
    (state(file) / "commands.db").write_bytes(b"x" * 5000)
    start(recorded(file))
    sock = state(file) / "sync.sock"
    until(lambda: (shot := is_up(sock)) and "mended or removed" in shot["health"]["commands"]["detail"])
    until(lambda: (shot := is_up(sock)) and shot["health"]["records"]["state"] == "ok")
    shot = is_up(sock)
    assert shot and shot["health"]["commands"]["state"] == "degraded"


def test_a_signed_command_is_what_the_box_asks_for(tmp_path):
    made = edge_runtime("sync", "key", "ops", "--out", str(tmp_path))
    assert (made.returncode, edge_runtime("sync", "key", "ops", "--out", str(tmp_path)).returncode) == (0, 2)
    words = ("--key", str(tmp_path / "ops.key"), "--box", "box-1")
    signed = json.loads(edge_runtime("sync", "sign", "automation", "degree=partial", *words).stdout)
    import base64

    payload, signature = (base64.b64decode(signed[name]) for name in ("payload", "signature"))
    assert is_signed(tmp_path, signed["key"], payload, signature)
    assert json.loads(payload)["args"] == {"degree": "partial"}
    for wrong in (("reboot",), ("automation",), ("automation", "degree=none"), ("status", "x=1"), ("stage", "model")):
        done = edge_runtime("sync", "sign", *wrong, *words)
        assert (done.returncode, done.stdout) == (2, "")


def test_a_box_that_takes_no_commands_does_not_listen(tmp_path, start, broker, closing):
    consumer = Consumer(broker.port)
    closing.callback(consumer.close)
    file = station(tmp_path, {"port": broker.port})
    start(recorded(file))
    until(lambda: well(file))
    consumer.publish(f"{BASE}/cmd", {"id": "1", "do": "status"})
    shot = is_up(state(file) / "sync.sock")
    assert shot and shot["commands"] is None
    assert not (state(file) / "commands.db").exists()


def test_a_state_folder_that_is_deleted_is_made_again_and_the_uplink_answers_in_it(tmp_path, start, broker, closing):
    consumer = Consumer(broker.port)
    closing.callback(consumer.close)
    file = station(tmp_path, {"port": broker.port})
    start(recorded(file, 5))
    until(lambda: consumer.parts("outcome") == set(range(1, 6)) and well(file))
    shutil.rmtree(state(file).rename(tmp_path / "gone"))
    shot = until(lambda: is_up(state(file) / "sync.sock"), why="the socket again")
    assert shot["station"] == "box-1"
    until(
        lambda: [record["data"]["why"] for record in consumer.of("epoch") if record["seq"] == 1] == ["first", "removed"]
    )
