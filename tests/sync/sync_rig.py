"""What the tests of the uplink share: real brokers, a consumer, a link that can be cut, a journal that is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.core.messages import (
    Cause,
    Decision,
    GateReport,
    HumanLabel,
    Label,
    Outcome,
    PartKey,
    Trigger,
    Verdict,
    Where,
)
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo
from tests.support.waiting import WAIT_S

STATION = {"name": "box-7", "site": "north", "line": "line-2"}
BASE = "edge/north/line-2/box-7"
INFO = RunInfo(
    config={"station": STATION}, config_digest="c0ffee", model="scratch@1", model_digest="d1", versions={"python": "3"}
)


def config(folder: Path, port: int, **sync: Any) -> EdgeConfig:
    settings = {
        "enabled": True,
        "port": port,
        "reconnect_max_s": 0.3,
        "metrics_every_s": 0,
        "ack_timeout_s": 5.0,
    } | sync
    return EdgeConfig.model_validate(
        {"station": STATION, "recording": {"state_dir": str(folder)}, "sync": settings},
    )


# -- brokers -----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port of the system's choice. Somebody else may take it first: a broker is started again then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mosquitto_program() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def nats_program() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


class Broker:
    """A broker process on a port that stays the same over restarts."""

    def __init__(self, kind: str, folder: Path, extra: str = "") -> None:
        self.kind, self.folder, self.extra = kind, folder, extra
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> Broker:
        for _ in range(5):
            self.port = self.port or free_port()
            with (self.folder / "broker.log").open("ab") as log:
                self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
            if self._answers():
                return self
            self.kill()
            self.port = 0
        raise AssertionError((self.folder / "broker.log").read_text())

    def _command(self) -> list[str]:
        conf = self.folder / "broker.conf"
        if self.kind == "mosquitto":
            conf.write_text(
                f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
                f"max_inflight_messages 1000\npersistence false\n{self.extra}\n"
            )
            return [str(mosquitto_program()), "-c", str(conf)]
        conf.write_text(
            f'server_name: "one"\nlisten: "127.0.0.1:-1"\n'
            f'jetstream {{ store_dir: "{self.folder / "js"}", sync_interval: always }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.port}", max_ack_pending: 1000 }}\n{self.extra}\n'
        )
        return [str(nats_program()), "-c", str(conf)]

    def _answers(self) -> bool:
        limit = time.monotonic() + 15
        while time.monotonic() < limit and self._process and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1.0):
                    return True
            except OSError:
                time.sleep(0.02)
        return False

    def kill(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()

    def freeze(self, is_frozen: bool) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP if is_frozen else signal.SIGCONT)


class Consumer:
    """Somebody in the cloud: keeps all records that arrive, by (epoch, seq)."""

    def __init__(self, port: int, *, acks: bool = False, topic: str = "edge/#") -> None:
        self.records: dict[tuple[str, int], dict[str, Any]] = {}
        self.order: list[tuple[str, int]] = []
        self.repeats: Counter[tuple[str, int]] = Counter()
        self.states: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.chunks: list[tuple[dict[str, Any], bytes]] = []
        self.arrived: dict[tuple[str, int], float] = {}
        self._acks = acks
        self._is_ready = threading.Event()
        client = self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, f"consumer-{id(self)}", clean_session=False
        )
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda c, *_: c.subscribe(topic, 1)
        client.on_subscribe = lambda *_: self._is_ready.set()
        client.on_message = self._take
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert self._is_ready.wait(WAIT_S)

    def _take(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/state"):
            self.states.append(json.loads(message.payload))
        elif message.topic.endswith("/event"):
            self.events.append(json.loads(message.payload))
        elif message.topic.endswith("/file"):
            header, _, chunk = message.payload.partition(b"\n")
            self.chunks.append((json.loads(header), chunk))
        elif message.topic.endswith("/rec"):
            record = json.loads(message.payload)
            key = record["epoch"], record["seq"]
            if key in self.records:
                assert self.records[key] == record, "the same number names the same record"
                self.repeats[key] += 1
            else:
                self.arrived[key] = time.monotonic()
                self.records[key] = record
                self.order.append(key)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in list(self.records.values()) if record["kind"] == kind]

    def parts(self, kind: str) -> set[int]:
        return {record["data"]["part_id"] for record in self.of(kind)}

    def publish(self, topic: str, payload: Any, retain: bool = False) -> None:
        self._client.publish(topic, json.dumps(payload), 1, retain).wait_for_publish(WAIT_S)

    def missing(self) -> dict[str, set[int]]:
        """Numbers that never came, by epoch."""
        found: dict[str, set[int]] = {}
        for epoch in {epoch for epoch, _ in list(self.records)}:
            seqs = {seq for known, seq in list(self.records) if known == epoch}
            if absent := set(range(1, max(seqs) + 1)) - seqs:
                found[epoch] = absent
        return found

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Proxy:
    """A TCP link between box and broker that can be cut, also in the middle of a packet."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self._lock = threading.Lock()
        self.cut_after: int | None = None  # bytes from the box after which the link is cut
        self.is_deaf = False  # answers of the broker are swallowed
        self.is_open = True
        self.cuts = 0
        self.connections = 0
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """As if nobody listened there; the broker behind it is reached by others all the while."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def listen_again(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                if not self.is_open:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self._target), 2.0)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs += [near, far]
            for source, sink, is_up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, is_up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        passed = 0
        try:
            while data := source.recv(4096):
                if is_up and self.cut_after is not None and passed + len(data) >= self.cut_after:
                    sink.sendall(data[: max(0, self.cut_after - passed)])
                    self.cuts += 1
                    break
                passed += len(data)
                if not (self.is_deaf and not is_up):
                    sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for end in pairs:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.cuts += 1

    def close(self) -> None:
        self._listener.close()
        self.cut()


# -- the journal -------------------------------------------------------------------------------------------------------


class Line:
    """Writes parts into a journal as a line does."""

    def __init__(self, folder: Path, clock: Clock = monotonic_ns, **options: Any) -> None:
        self.clock = clock
        self.journal = Journal(folder / "journal.db", INFO, clock, **options)
        self.journal.start()
        self.made = 0

    def parts(self, count: int, verdict: Verdict = Verdict.REJECT, *, ended: bool = True) -> list[int]:
        """So many parts, on the disk when this returns."""
        numbers = list(range(self.made + 1, self.made + count + 1))
        for number in numbers:
            self.trigger(number)
            self.decide(number, verdict)
            if ended:
                self.end(number, Outcome.FIRED if verdict is not Verdict.ACCEPT else Outcome.PASSED)
            if number % 1000 == 0:
                assert self.journal.flush(WAIT_S)
        self.made += count
        assert self.journal.flush(WAIT_S)
        return numbers

    def trigger(self, number: int) -> None:
        self.journal.triggered(Trigger(PartKey(7, number), number, self.clock()))

    def decide(self, number: int, verdict: Verdict = Verdict.REJECT) -> None:
        now = self.clock()
        self.journal.decided(
            Decision(
                PartKey(7, number), verdict, Cause.MODEL, "scratch 0.93 >= 0.80", 0.93, now, now, now, "scratch@1"
            ),
            None,
            None,
        )

    def end(self, number: int, outcome: Outcome = Outcome.FIRED) -> None:
        self.journal.ended(GateReport(PartKey(7, number), outcome, number, self.clock()))

    def say(self, number: int, label: Label, by: str, **more: Any) -> None:
        """What a person says about a part, on the disk when this returns."""
        self.journal.labelled(HumanLabel(PartKey(7, number), label, self.clock(), by, Where.PAGE, **more))
        assert self.journal.flush(WAIT_S)

    def stop(self) -> None:
        self.journal.stop()
