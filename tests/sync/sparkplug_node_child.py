"""A whole edge node as a process of its own: the product's node, runner and link over a box that is made up.

    python sparkplug_node_child.py STATE_DIR GROUP NODE PORT[,PORT] [PRIMARY_HOST]

Parts pass, the camera is lost and comes back every few seconds, `run` itself goes away for a moment. Ends on SIGTERM.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from edge_runtime.sync.mqtt.settings import LinkSettings
from edge_runtime.sync.sparkplug.actions import Command, Sample
from edge_runtime.sync.sparkplug.link import SparkplugLink
from edge_runtime.sync.sparkplug.metrics import AUTOMATION, StatusReader, device_tags, node_tags
from edge_runtime.sync.sparkplug.node import NodeIdentity, SparkplugNode
from edge_runtime.sync.sparkplug.runner import BdSeqFile, SparkplugRunner

PERIOD_S = 0.1  # ten times the product's pace: many births and deaths in little time
CAMERA_LOST, RUN_GONE = range(12, 16), range(24, 26)  # of every 30 samples


def status(n: int) -> dict[str, Any]:
    camera = "failed" if n % 30 in CAMERA_LOST else "ok"
    names = ("line", "model", "controller", "journal", "evidence")
    return {
        "station": "box", "site": "site", "line": "line-1", "version": "0", "state": "ok", "model": "scratch@1",
        "config_digest": "c0ffee", "uptime_s": n * PERIOD_S, "rss_mb": 100.0 + n % 7, "parts": n, "late": 0,
        "on_belt": n % 5, "verdicts": {"accept": n - n // 9, "reject": n // 9, "unsure": 0}, "causes": {"model": n},
        "outcomes": {"passed": n}, "latency_ms": {"invoke": {"p50": 3.0 + n % 3, "p99": 9.0}},
        "health": {name: {"state": "ok"} for name in names} | {"camera": {"state": camera}},
        "report": {"camera": {"driver": "sim", "frames": n}, "controller": {"phase": "up", "open_parts": n % 3}},
        "automation": AUTOMATIONS[-1],
    }  # fmt: skip


AUTOMATIONS = ["full"]


def main() -> None:
    state, group, name, ports = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4].split(",")
    host = sys.argv[5] if len(sys.argv) > 5 else None
    reader, count = StatusReader(commands=[AUTOMATION]), itertools.count()

    def read() -> Sample:
        n = next(count)
        return reader.read(None if n % 30 in RUN_GONE else status(n), {"outbox_waiting": n // 10})

    def command(given: Command) -> None:
        AUTOMATIONS.append(str(given.value))

    number = BdSeqFile(state / "bd_seq")
    identity = NodeIdentity(group, name, host, servers=len(ports))
    node = SparkplugNode(identity, node_tags(), device_tags(commands=[AUTOMATION]), bd_seq=number.read(), seed=1)
    link = SparkplugLink([LinkSettings("127.0.0.1", int(port), f"{name}-tags", keepalive_s=5) for port in ports])
    runner = SparkplugRunner(node, link, bd_seq=number, read=read, command=command, period_s=PERIOD_S)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    runner.start()
    done.wait(300)
    runner.stop()


if __name__ == "__main__":
    main()
