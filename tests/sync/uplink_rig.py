"""Certificates, the example brokers on free ports, people with certificates, and the two daemons as processes."""

from __future__ import annotations

import json
import queue
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from edge_runtime.core.errors import DeviceError
from edge_runtime.modelstore.bundle import seal_bundle
from edge_runtime.process.control import ask
from tests.support.waiting import WAIT_S, until
from tests.sync.sync_rig import free_port, mosquitto_program, nats_program

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny"
EXAMPLES = ROOT / "systemd" / "examples"
BOX = "box-1"
BASE = f"edge/plant/line-1/{BOX}"


def certs(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools" / "certs", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def make_authority(folder: Path, *clients: str) -> Path:
    for words in (["authority", folder], ["broker", folder, "localhost", "127.0.0.1"]):
        assert certs(*words).returncode == 0
    for name in clients:
        assert certs("client", folder, name).returncode == 0
    return folder


def client_tls(folder: Path, name: str | None, ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca or folder / "ca.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


class ExampleBroker:
    """mosquitto or nats-server with the example files, whose paths and ports alone are changed."""

    def __init__(self, kind: str, folder: Path, authority: Path, boxes: tuple[str, ...] = (BOX,)) -> None:
        self.kind, self.folder = kind, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        text = (EXAMPLES / f"{kind}.conf").read_text()
        text = text.replace(f"/etc/{kind}/edge/edge.acl", str(EXAMPLES / "edge.acl"))
        text = text.replace(f"/etc/{kind}/edge", str(authority))
        if kind == "mosquitto":
            text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1")
            text = f"user root\n{text}\npersistence_location {folder}/\n"
        else:
            entry = re.search(r"    \{\n      user: \"CN=box-1\".*?\n    \}\n", text, re.S)
            assert entry
            text = text.replace(entry[0], "".join(entry[0].replace(BOX, name) for name in boxes))
            text = text.replace("0.0.0.0:8883", f"127.0.0.1:{self.port}").replace("127.0.0.1:4222", "127.0.0.1:-1")
            text = text.replace("/var/lib/nats", str(folder / "store"))
        (folder / "broker.conf").write_text(text)

    def start(self) -> ExampleBroker:
        program = mosquitto_program() if self.kind == "mosquitto" else nats_program()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), "-c", str(self.folder / "broker.conf")], stdout=log, stderr=log
            )
        until(self._answers, 15, "broker")
        return self

    def _answers(self) -> bool:
        import socket

        assert self._process and self._process.poll() is None, (self.folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()


class Person:
    """Somebody at the broker with a certificate: publishes, and keeps what arrives."""

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None = None,
        topics: tuple[str, ...] = (),
        client_id: str = "",
        version: int = mqtt.MQTTv311,
    ) -> None:
        self.heard: queue.Queue[tuple[str, Any, bool]] = queue.Queue()
        self.kept: list[tuple[str, Any]] = []
        self._is_ready = threading.Event()
        self.refused: list[str] = []
        self._topics = topics
        client = self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version)
        if tls:
            client.tls_set_context(tls)
        client.on_connect = self._connected
        client.on_subscribe = lambda *_: self._is_ready.set()
        client.on_message = self._take
        client.connect("127.0.0.1" if tls is None else "localhost", port, 20)
        client.loop_start()
        assert self._is_ready.wait(WAIT_S), self.refused

    def _connected(self, client: mqtt.Client, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.refused.append(str(reason))
        for topic in self._topics:
            client.subscribe(topic, 1)
        if not self._topics:
            self._is_ready.set()

    def _take(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        try:
            payload: Any = json.loads(message.payload)
        except ValueError:
            payload = bytes(message.payload)
        self.kept.append((message.topic, payload))
        self.heard.put((message.topic, payload, bool(message.retain)))

    def publish(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        self.client.publish(topic, payload, 1, retain).wait_for_publish(WAIT_S)

    def reply(self, wait_s: float = WAIT_S) -> dict[str, Any]:
        """The next answer to a command."""
        limit = time.monotonic() + wait_s
        while time.monotonic() < limit:
            try:
                topic, payload, _ = self.heard.get(timeout=0.1)
            except queue.Empty:
                continue
            if topic.endswith("/cmd/reply"):
                assert isinstance(payload, dict)
                return payload
        raise AssertionError("no reply")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Process:
    """One `edge-runtime ...`, ended with the test."""

    def __init__(self, folder: Path, name: str, *words: str, env: Mapping[str, str] | None = None) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_runtime", *words],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env,
            )  # fmt: skip

    def terminate(self, wait_s: float = 10.0) -> tuple[int, float]:
        """Exit code, and how long it took."""
        started = time.monotonic()
        self.process.terminate()
        code = self.process.wait(wait_s)
        return code, time.monotonic() - started

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def edge_runtime(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", *words], capture_output=True, text=True, timeout=timeout, check=False
    )


def make_model(store: Path, version: str) -> None:
    folder = store / "tiny" / version
    folder.mkdir(parents=True)
    shutil.copy(TINY / "bright_heat.tflite", folder / "model.tflite")
    spec = {"width": 32, "height": 32, "scale": 1 / 255}
    output = {"labels": ["bright"], "top_k": 1, "region_at": 0.5}
    about = {"name": "tiny", "version": version, "kind": "heatmap", "licence": "Apache-2.0"}
    seal_bundle(folder, {**about, "input": spec, "output": output})


def station(folder: Path, sync: Mapping[str, Any]) -> Path:
    """A station file of a light simulated line with an uplink."""
    state = folder / "state"
    state.mkdir(exist_ok=True)

    def value(what: Any) -> str:
        return json.dumps(what) if not isinstance(what, bool) else str(what).lower()

    flat = {key: what for key, what in sync.items() if not isinstance(what, dict)}
    lines = [f"[station]\nname = '{BOX}'\nsite = 'plant'\nline = 'line-1'"]
    lines += [f"[recording]\nstate_dir = '{state}'\n[model]\nname = 'tiny'\nstore = '{folder / 'models'}'"]
    lines += ["[modelstore]\nrequire_signature = false"]  # its models are made here
    lines += ["[camera]\nwidth = 320\nheight = 180\n[world]\nparts_per_s = 4.0"]
    lines += ["[sync]\nenabled = true\nmetrics_every_s = 0\nreconnect_max_s = 0.5"]
    lines += [f"{key} = {value(what)}" for key, what in flat.items()]
    for name, table in sync.items():
        if isinstance(table, dict):
            lines += [f"[sync.{name}]", *(f"{key} = {value(what)}" for key, what in table.items())]
    file = folder / "station.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def is_up(socket: Path) -> dict[str, Any] | None:
    try:
        shot: dict[str, Any] = ask(socket, "status")
    except DeviceError:
        return None
    return shot
