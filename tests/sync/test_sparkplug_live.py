"""The product's node over a real broker: judged by the checker, read by programs of other projects."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.sync.sparkplug.payload import GOOD, QUALITY, DataType, Metric, Payload, Property, encode
from tests.support.waiting import until

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
PEERS = Path(os.environ.get("EDGE_RUNTIME_SPARKPLUG_PEERS", ROOT / ".venv" / "sparkplug-peers"))
PEER_PYTHON = PEERS / "python" / "bin" / "python"
CHECK = ROOT / "tools" / "sparkplug_check"
CHILD = HERE / "sparkplug_node_child.py"
NO_PEERS = f"no programs of others in {PEERS}; run tools/sparkplug/peers"

StartBroker = Callable[[], int]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Starts mosquitto on a free port; all are stopped at the end."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.skip("no mosquitto here; apt-get install mosquitto")
    running: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        config = tmp_path / f"mosquitto-{port}.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        running.append(subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL))
        until(lambda: is_listening(port), why="mosquitto does not listen")
        return port

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.fixture
def child(tmp_path: Path, real_answer: dict[str, Any]) -> list[str]:
    """The command of a node that counts on from what a real box said."""
    (tmp_path / "status.json").write_text(json.dumps(real_answer))
    return [sys.executable, str(CHILD), str(tmp_path / "status.json"), str(tmp_path)]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check(*options: str, node: list[str]) -> tuple[dict[str, str], str]:
    """Run the checker around a node; assertion -> result, and what it said beside."""
    command = [sys.executable, str(CHECK), "--group", "plant", "--node", "box", "--json", *options, "--", *node]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.stdout, done.stderr
    results = {row["assertion"].removeprefix("tck-id-"): row["result"] for row in json.loads(done.stdout)}
    assert (done.returncode == 1) == ("failed" in results.values()), done.stderr
    return results, done.stderr


def named(results: dict[str, str], result: str) -> set[str]:
    return {name for name, found in results.items() if found == result}


def test_no_assertion_fails_over_random_link_cuts_and_none_is_left_untested(
    broker: StartBroker, child: list[str]
) -> None:
    node = [*child, "plant", "box", "{port1}"]
    results, said = check("--broker", str(broker()), "--cut", "4", "--seconds", "90", node=node)
    assert named(results, "failed") == set(), said
    assert named(results, "not_tested") == set(), said
    assert len(named(results, "passed")) > 140


def test_no_assertion_fails_while_the_primary_host_comes_and_goes_on_two_servers(
    broker: StartBroker, child: list[str]
) -> None:
    node = [*child, "plant", "box", "{port1},{port2}", "scada"]
    servers = [word for _ in range(2) for word in ("--listen", "0", "--broker", str(broker()))]
    results, said = check(*servers, "--primary-host", "scada", "--cut", "1", "--seconds", "150", node=node)
    assert named(results, "failed") == set(), said
    assert named(results, "not_tested") == set(), said
    assert len(named(results, "passed")) > 150


def test_the_known_faults_of_another_library_are_found(broker: StartBroker) -> None:
    if not PEER_PYTHON.exists():
        pytest.skip(NO_PEERS)
    node = [str(PEER_PYTHON), str(HERE / "sparkplug_peer_node.py"), "{port1}", "plant", "box"]
    results, said = check("--broker", str(broker()), "--passive", "--seconds", "3", node=node)
    failed = named(results, "failed")
    assert "payloads-ndeath-will-message-qos" in failed, said
    assert "operational-behavior-data-commands-rebirth-name" in failed, said
    assert "payloads-ndeath-bdseq" in failed, said  # NDEATH on leaving carries the number of the next session


def test_a_host_of_another_project_sees_births_data_and_death_and_gets_a_rebirth(
    broker: StartBroker, child: list[str]
) -> None:
    if not PEER_PYTHON.exists():
        pytest.skip(NO_PEERS)
    port = str(broker())
    host = subprocess.Popen(
        [str(PEER_PYTHON), str(HERE / "sparkplug_peer_host.py"), port, "plant", "box"],
        stdout=subprocess.PIPE,
        text=True,
    )
    node = None
    try:
        assert host.stdout
        assert json.loads(host.stdout.readline())["kind"] == "ready"
        node = subprocess.Popen([*child, "plant", "box", port])
        seen = _read_until_two_births_and_data(host)
        node.send_signal(signal.SIGTERM)
        node.wait(20)
        seen += [json.loads(line) for line in host.stdout]
    finally:
        for process in (node, host):
            if process:
                process.kill()
                process.wait(10)
        host.stdout.close()
    births = [row for row in seen if row["kind"] == "NBIRTH"]
    assert [birth["seq"] for birth in births] == [0, 0]
    assert births[0]["metrics"]["bdSeq"] == births[1]["metrics"]["bdSeq"] == 0
    assert births[0]["metrics"]["Node Control/Rebirth"] is False
    assert {row["device"] for row in seen if row["kind"] == "DBIRTH"} == {"line", "camera", "controller"}
    parts = [row["metrics"]["Counts/Parts"] for row in seen if "Counts/Parts" in row["metrics"]]
    assert parts == sorted(parts) and len(parts) >= 4
    assert seen[-1]["kind"] == "NDEATH" and seen[-1]["metrics"] == {"bdSeq": 0}


def _read_until_two_births_and_data(host: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert host.stdout
    seen: list[dict[str, Any]] = []
    for line in host.stdout:
        seen.append(json.loads(line))
        kinds = [row["kind"] for row in seen]
        if kinds.count("NBIRTH") == 2 and kinds[-1] == "DDATA":
            return seen
    raise AssertionError(f"the host ended early: {seen[-3:]}")


def test_a_checker_that_sees_no_node_says_so(broker: StartBroker) -> None:
    command = [sys.executable, str(CHECK), "--group", "plant", "--node", "box", "--broker", str(broker()), "--passive"]
    done = subprocess.run([*command, "--seconds", "0.2"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "no connection of plant/box was seen" in done.stderr
    wrong = subprocess.run([*command, "--broker", "1"], capture_output=True, text=True, timeout=30, check=False)
    assert wrong.returncode == 2 and "as often" in wrong.stderr


# Decoders of others


def sample_payload() -> bytes:
    quality = {QUALITY: Property(DataType.INT32, GOOD), "engUnit": Property(DataType.STRING, "ms")}
    metrics = [
        Metric("bdSeq", 255, DataType.INT64, timestamp_ms=1_760_000_000_000),
        Metric("Flag", True, DataType.BOOLEAN, alias=1),
        Metric("Small", -5, DataType.INT32, alias=2),
        Metric("Real", 2.5, DataType.DOUBLE, alias=3, properties=quality),
        Metric("Short", 0.5, DataType.FLOAT, alias=4),
        Metric("Text", "Größe µm", DataType.STRING, alias=5, is_historical=True),
        Metric("Nothing", None, DataType.INT64, alias=6),
        Metric("When", 1_760_000_000_001, DataType.DATETIME, alias=7, is_transient=True),
        Metric("Raw", b"\x00\xff", DataType.BYTES, alias=8),
        Metric("Big", 2**40, DataType.UINT64, alias=9),
    ]
    return encode(Payload(metrics, 1_760_000_000_000, 7))


def test_protoc_decodes_our_payload_with_the_published_schema(tmp_path: Path) -> None:
    protoc = shutil.which("protoc")
    if not protoc or not PEER_PYTHON.exists():
        pytest.skip("no protoc here; apt-get install protobuf-compiler" if not protoc else NO_PEERS)
    schema = tmp_path / "sparkplug.desc"  # the schema as the peer's package carries it, compiled from the published one
    dump = (
        "import sys; from google.protobuf.descriptor_pb2 import FileDescriptorSet as S;"
        "from pysparkplug._protobuf import sparkplug_b_pb2 as p; s = S(); p.DESCRIPTOR.CopyToProto(s.file.add());"
        "sys.stdout.buffer.write(s.SerializeToString())"
    )
    schema.write_bytes(subprocess.run([PEER_PYTHON, "-c", dump], capture_output=True, check=True).stdout)
    package = b"org.eclipse.tahu.protobuf.Payload"
    assert package.rpartition(b".")[0] in schema.read_bytes()
    command = [protoc, f"--descriptor_set_in={schema}", f"--decode={package.decode()}"]
    done = subprocess.run(command, input=sample_payload(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for line in (
        'name: "bdSeq"', "long_value: 255", "boolean_value: true", "int_value: 4294967291", "double_value: 2.5",
        "float_value: 0.5", "is_historical: true", "is_null: true", "is_transient: true", 'keys: "Quality"',
        "int_value: 192", 'string_value: "ms"', "long_value: 1099511627776", "seq: 7", "timestamp: 1760000000000",
    ):  # fmt: skip
        assert line in text, text
    assert not any(line.strip()[0].isdigit() for line in text.splitlines()), "a field that the schema does not know"


def test_sparkplug_payload_of_npm_decodes_our_payload() -> None:
    node = shutil.which("node")
    if not node or not (PEERS / "node_modules" / "sparkplug-payload").is_dir():
        pytest.skip("no node here; apt-get install nodejs npm" if not node else NO_PEERS)
    script = """
      const sparkplug = require('sparkplug-payload').get('spBv1.0');
      let hex = ''; process.stdin.on('data', d => hex += d).on('end', () => {
        const p = sparkplug.decodePayload(Buffer.from(hex, 'hex'));
        const plain = (_, v) => typeof v === 'bigint' || (v && v.unsigned !== undefined) ? Number(v) : v;
        console.log(JSON.stringify(p, plain)); });
    """
    done = subprocess.run(
        [node, "-e", script], input=sample_payload().hex(), capture_output=True, text=True, cwd=PEERS, check=False
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    metrics = {metric["name"]: metric for metric in read["metrics"]}
    assert (read["seq"], read["timestamp"]) == (7, 1_760_000_000_000)
    values = {name: metric.get("value") for name, metric in metrics.items()}
    assert values["bdSeq"] == 255 and values["Small"] == -5 and values["Real"] == 2.5 and values["Big"] == 2**40
    assert values["Text"] == "Größe µm" and values["Nothing"] is None and values["Flag"] is True
    assert metrics["Text"]["isHistorical"] is True and metrics["Real"]["properties"]["Quality"]["value"] == 192
