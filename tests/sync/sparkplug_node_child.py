"""A whole edge node as a process of its own: the product's node, runner and link, without a box to run beside it.

    python sparkplug_node_child.py STATUS.json STATE_DIR GROUP NODE PORT[,PORT] [PRIMARY_HOST]

STATUS.json: what a real box said once; from there it is counted on. Parts pass, the camera is lost and comes back every
few seconds, `run` itself goes away for a moment. Ends on SIGTERM.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.ask_status import Silence
from edge_runtime.sync.mqtt.settings import LinkSettings
from edge_runtime.sync.sparkplug.actions import Command, Sample
from edge_runtime.sync.sparkplug.link import SparkplugLink
from edge_runtime.sync.sparkplug.metrics import AUTOMATION, StatusReader, device_tags, node_tags
from edge_runtime.sync.sparkplug.node import NodeIdentity, SparkplugNode
from edge_runtime.sync.sparkplug.runner import BdSeqFile, SparkplugRunner

PERIOD_S = 0.1  # ten times the product's pace: many births and deaths in little time
CAMERA_LOST, RUN_GONE = range(12, 16), range(24, 26)  # of every 30 samples


def status(n: int) -> Status:
    """What the real box would have said at its n-th look."""
    lost = State.FAILED if n % 30 in CAMERA_LOST else State.OK
    invoke = replace(BOX.latency_ms.invoke, p50=3.0 + n % 3)
    report = BOX.report
    return replace(
        BOX,
        uptime_s=n * PERIOD_S,
        rss_mb=100.0 + n % 7,
        parts=n,
        on_belt=n % 5,
        verdicts={**BOX.verdicts, "accept": n - n // 9, "reject": n // 9},
        causes={**BOX.causes, "model": n},
        outcomes={**BOX.outcomes, "passed": n},
        latency_ms=replace(BOX.latency_ms, invoke=invoke),
        health={**BOX.health, "camera": replace(BOX.health["camera"], state=lost)},
        report=replace(
            report,
            camera=replace(report.camera, frames=n),
            controller=replace(report.controller, open_parts=n % 3),
        ),
        automation=AUTOMATIONS[-1],
    )


AUTOMATIONS = ["full"]
BOX = Status.from_json(json.loads(Path(sys.argv[1]).read_text()))


def main() -> None:
    state, group, name, ports = Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5].split(",")
    host = sys.argv[6] if len(sys.argv) > 6 else None
    reader, count = StatusReader(commands=[AUTOMATION]), itertools.count()

    def read() -> Sample:
        n = next(count)
        return reader.read(Silence.STOPPED if n % 30 in RUN_GONE else status(n), {"outbox_waiting": n // 10})

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
