"""The cloud side of the demo: a broker, `edge-runtime sync` beside `run`, and a subscriber that counts what arrives."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge_runtime.commissioning.demo_broker import Broker, broker_program
from edge_runtime.config.paths import state_dir
from edge_runtime.core.errors import DeviceError, EdgeError
from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.state import State
from edge_runtime.sync.outbox.schema import OUTBOX

if TYPE_CHECKING:
    from edge_runtime.config.schema import EdgeConfig

READY_S = 10.0
DRAIN_S = 5.0  # after the line has ended: a demo that waits longer is tedious
ARRIVE_S = 2.0
END_S = 6.0
MARK = "outbox.demo"  # beside an outbox that a demo made
INSTALL = "no uplink in this demo: pip install 'edge-runtime[demo]' brings a broker and an MQTT client"


def open_uplink(cfg: EdgeConfig, words: Sequence[str], log: IO[str] | None) -> DemoUplink | str:
    """Broker, subscriber and `sync`, started; or one line that says why there is none.

    words: global options of the demo, for the daemon. log: where its lines go; None: stderr.
    """
    program = broker_program()
    if program is None or find_spec("paho") is None:
        return INSTALL
    uplink = DemoUplink(cfg, Broker(program))
    try:
        _claim(state_dir(cfg))
        uplink.start(words, log)
    except EdgeError as err:
        uplink.stop()
        return f"no uplink in this demo: {err}"
    except BaseException:
        uplink.stop()
        raise
    return uplink


def _claim(state: Path) -> None:
    """Raises DeviceError where a station's records wait: a demo's broker is no place to deliver them to."""
    mark = state / MARK
    if (state / OUTBOX).exists() and not mark.exists():
        raise DeviceError(f"{state / OUTBOX} is a station's own, and its records are not for a demo's broker")
    try:
        state.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as err:
        raise DeviceError(f"{state} cannot be written ({err.strerror})") from err


class DemoUplink:
    def __init__(self, cfg: EdgeConfig, broker: Broker) -> None:
        from edge_runtime.sync.mqtt.tally import Subscriber

        self._cfg, self._broker = cfg, broker
        self._daemon: subprocess.Popen[bytes] | None = None
        self._subscriber: Subscriber | None = None

    def start(self, words: Sequence[str], log: IO[str] | None) -> None:
        """Raises DeviceError when broker or subscriber do not come up."""
        from edge_runtime.sync.mqtt.settings import LinkSettings
        from edge_runtime.sync.mqtt.tally import Subscriber

        port = self._broker.start()
        self._subscriber = Subscriber(LinkSettings("127.0.0.1", port, "demo-subscriber", protocol="3.1.1"))
        self._subscriber.start()
        if not self._subscriber.is_ready.wait(READY_S):
            raise DeviceError("the broker does not take subscribers")
        settings = {
            "enabled": "true", "host": "127.0.0.1", "port": port, "protocol": "3.1.1", "tls": "false",
            "metrics_every_s": 5, "commands": "off",
        }  # fmt: skip
        extra = [word for key, value in settings.items() for word in ("--set", f"sync.{key}={value}")]
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", *words, *extra, "sync"], stdin=subprocess.DEVNULL, stderr=log
        )

    def health(self) -> ComponentHealth:
        """A line for the screen."""
        try:
            shot = self._ask("status")
        except DeviceError:
            return ComponentHealth(State.STARTING, "", None)
        records, tags = shot["records"], shot["tags"]
        detail = f"{records['delivered']} records delivered, {records['waiting']} wait"
        told = f"{detail}; live tags {tags['phase']}" if tags else detail
        return ComponentHealth(State(shot["state"]), told, None)

    def finish(self) -> dict[str, Any]:
        """After the line: wait until all has arrived, end everything, tell what came.

        `waiting`: what did not; None when the uplink did not say.
        """
        waiting = None
        try:
            with suppress(DeviceError):
                self._ask("flush", DRAIN_S + 1, within_s=DRAIN_S)
                waiting = self._wait_arrived()
            self._end_daemon()
            return {**(self._subscriber.report() if self._subscriber else {}), "waiting": waiting}
        finally:
            self.stop()

    def _wait_arrived(self) -> int:
        """The broker has it all; the subscriber has it a moment later."""
        records = self._ask("status")["records"]
        limit = time.monotonic() + ARRIVE_S
        while self._subscriber and not self._subscriber.tally.has(records["epoch"], records["last_seq"]):
            if time.monotonic() > limit:
                break
            time.sleep(0.02)
        return int(records["waiting"])

    def stop(self) -> None:
        """Safe at any time."""
        self._end_daemon()
        subscriber, self._subscriber = self._subscriber, None
        if subscriber:
            subscriber.stop()
        self._broker.stop()

    def _end_daemon(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(END_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _ask(self, do: str, timeout_s: float = 1.0, **words: Any) -> Any:
        from edge_runtime.sync.paths import ask_sync

        return ask_sync(self._cfg, do, timeout_s, **words)


def uplink_lines(report: dict[str, Any]) -> list[str]:
    """What a subscriber received, for people."""
    kinds = "  ".join(f"{kind} {count}" for kind, count in report["kinds"].items())
    lines = [f"uplink    a subscriber received {report['records']} records: {kinds or 'none'}"]
    for epoch in report["epochs"]:
        lines.append(f"          numbers {epoch['first']} to {epoch['last']}, {epoch['holes']} holes, "
                     f"{epoch['repeats']} repeats")  # fmt: skip
    births = {name: report["tags"].get(name, 0) for name in ("NBIRTH", "DBIRTH", "DDATA", "NDEATH")}
    lines.append("          Sparkplug " + "  ".join(f"{name} {count}" for name, count in births.items()))
    if report["waiting"] is None:
        lines.append("          the uplink did not answer at the end")
    elif report["waiting"]:
        lines.append(f"          {report['waiting']} records of earlier days still wait in the outbox")
    return lines
