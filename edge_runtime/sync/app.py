"""The uplink put together: records, live tags, commands and updates, each with a connection and thread of its own.

    journal --> Delivery --------- records link ---\\
    control socket --> RunWatch --> tags link -------> broker
         ^------- CommandDesk <-- commands link ---/

`run` need not be there: what it would have answered is told as missing, and records of before go out all the same.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edge_runtime import __version__
from edge_runtime.config.paths import at_home, socket_path, state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError, UsageError
from edge_runtime.core.events import EventKind
from edge_runtime.flow.components import Component, Health, State
from edge_runtime.process.control import ControlServer
from edge_runtime.process.daemon_loop import hung
from edge_runtime.sync.box import Allowance, OldestRecord, RunWatch, Silent, machine, metrics, rss_mb
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.first_look import FirstLook
from edge_runtime.sync.mqtt.settings import LinkSettings, link_settings
from edge_runtime.sync.paths import BD_SEQ, command_book, sync_socket
from edge_runtime.sync.sparkplug.actions import Command, Note, Sample
from edge_runtime.sync.sparkplug.link import SparkplugLink
from edge_runtime.sync.sparkplug.metrics import AUTOMATION, ROLLBACK, StatusReader, device_tags, node_tags
from edge_runtime.sync.sparkplug.node import NodeIdentity, SparkplugNode
from edge_runtime.sync.sparkplug.runner import BdSeqFile, NotYet, SparkplugRunner
from edge_runtime.sync.update_watch import UpdateWatch

if TYPE_CHECKING:  # signatures cost 8 MB: not for a box that takes no commands
    from edge_runtime.sync.commands.allowed import Proof
    from edge_runtime.sync.commands.channel import CommandChannel
    from edge_runtime.sync.commands.desk import CommandDesk
    from edge_runtime.sync.commands.judge import Commands

log = logging.getLogger(__name__)

EVENTS_A_MINUTE = 30  # of commands and live tags: whoever floods the box must not fill its outbox
STALE_NS = 120 * SECOND  # a look-up of names may hang for half of this where the network is broken


class Uplink:
    """All of `edge-runtime sync`. Parts that the station does not want are None."""

    def __init__(self, cfg: EdgeConfig, env: Mapping[str, str] = os.environ, clock: Clock = monotonic_ns) -> None:
        self._cfg, self._clock = cfg, clock
        self._state = state_dir(cfg)
        self._run = RunWatch(socket_path(cfg))
        self._allowance = Allowance(EVENTS_A_MINUTE)
        self._oldest = OldestRecord(self._state)
        self._started_ns = clock()
        self.records = Delivery(cfg, snapshot=lambda: metrics(self._run, self._state), env=env)
        self.commands = self._make_commands(link_settings(cfg.sync, cfg.station.name, env))
        self.tags = self._make_tags(link_settings(cfg.sync, cfg.station.name, env, "-tags"))
        self._unsigned = self._make_unsigned()
        self.updates = UpdateWatch(cfg, self._post) if cfg.updates.fetch != "never" else None
        self.control = ControlServer(
            sync_socket(cfg),
            {
                "status": lambda _: self.status(),
                "flush": lambda words: self.records.flush(_seconds(words)),
                "retry": lambda _: self.records.retry(),
            },
        )

    # -- starting and stopping ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Raises StorageError when another sync runs here; whatever else is wrong is told in health."""
        self.records.start()
        try:
            self.control.start()
        except DeviceError as err:
            log.error("control.closed %s", err)
        for part in self._others():
            part.start()

    def stop(self) -> None:
        """All at once, because SIGTERM must end within 5 s and each may take 4."""
        parts = [*self._others(), self.records]
        enders = [threading.Thread(target=part.stop, name=f"stop-{part.name}", daemon=True) for part in parts]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        self.control.stop()

    def look_after(self) -> None:
        """The socket lies in the state folder: when somebody deletes that, be reachable again."""
        if self.control.path.exists():
            return
        self.control.stop()
        try:
            self.control.start()
            log.error("state.gone %s was removed: the socket is made anew", self.control.path)
        except DeviceError as err:
            log.debug("control.closed %s", err)  # said at the start; tried again in a second

    def _others(self) -> list[Component]:
        return [part for part in (self.tags, self.commands, self._unsigned, self.updates) if part]

    # -- how it is ----------------------------------------------------------------------------------------------------

    def healths(self) -> dict[str, Health]:
        named: dict[str, Component | None] = {
            "records": self.records, "tags": self.tags, "commands": self.commands or self._unsigned,
            "updates": self.updates,
        }  # fmt: skip
        return {name: part.health() for name, part in named.items() if part}

    def stuck(self) -> list[str]:
        """Parts whose loop has not turned for so long that only a new process helps."""
        return hung(self.healths(), self._clock(), STALE_NS)

    def line(self) -> str:
        """For `systemctl status`."""
        healths = self.healths().items()
        troubles = [f"{name} {health.detail}" for name, health in healths if health.state is not State.OK]
        report = self.records.report()
        return f"{report['waiting']} wait, {report['delivered']} delivered; {'; '.join(troubles) or 'all well'}"

    def status(self) -> dict[str, Any]:
        """JSON types only."""
        healths, now = self.healths(), self._clock()
        states = {health.state for health in healths.values()}
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "station": self._cfg.station.name,
            "version": __version__,
            "pid": os.getpid(),
            "state": State.OK if states == {State.OK} else State.FAILED if State.FAILED in states else State.DEGRADED,
            "uptime_s": round((now - self._started_ns) / SECOND, 1),
            "health": {name: {"state": health.state, "detail": health.detail} for name, health in healths.items()},
            "records": dict(self.records.report()),
            "tags": dict(self.tags.report()) if self.tags else None,
            "commands": dict(part.report()) if (part := self.commands or self._unsigned) else None,
            "updates": dict(self.updates.report()) if self.updates else None,
            "rss_mb": rss_mb(),
            "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        }

    # -- live tags ----------------------------------------------------------------------------------------------------

    def _make_tags(self, settings: LinkSettings) -> SparkplugRunner | None:
        cfg = self._cfg.sync.sparkplug
        if not cfg.enabled:
            return None
        writable = (AUTOMATION, ROLLBACK) if cfg.commands else ()
        with_microphone = self._cfg.microphone.driver != "off"
        reader = StatusReader(has_microphone=with_microphone, commands=writable)
        servers = [replace(settings, host=host, port=port) for host, port in map(_address, cfg.servers)] or [settings]
        station = self._cfg.station
        number = BdSeqFile(self._state / BD_SEQ)
        identity = NodeIdentity(cfg.group or station.site, station.name, cfg.primary_host or None, len(servers))
        devices = device_tags(has_microphone=with_microphone, commands=writable)

        first = FirstLook(self._clock)

        def read() -> Sample:
            shot = self._run.look()
            if first.is_early(shot):
                raise NotYet("the box is still starting")
            return reader.read(shot.state if isinstance(shot, Silent) else shot, self._box())

        return SparkplugRunner(
            SparkplugNode(identity, node_tags(), devices, bd_seq=number.read()),
            SparkplugLink(servers),
            bd_seq=number,
            read=read,
            command=self._written,
            note=self._noted,
        )

    def _box(self) -> dict[str, Any]:
        report = self.records.report()
        return {
            "outbox_waiting": report["waiting"],
            "outbox_dropped": sum(report["dropped"].values()),
            "outbox_oldest_s": self._oldest.age_s() if report["waiting"] else 0.0,
            "time_quality": report["time_quality"],
            **machine(self._state),
        }

    def _noted(self, note: Note) -> None:
        self._post(note.kind, dict(note.detail))

    def _written(self, command: Command) -> None:
        desk = self.commands.desk if self.commands else self._unsigned
        if desk is None:
            return
        if command.name == AUTOMATION:
            desk.receive_unsigned("automation", {"degree": str(command.value)}, "sparkplug")
        elif command.name == ROLLBACK and command.value is True:
            desk.receive_unsigned("rollback", {}, "sparkplug")

    # -- commands -----------------------------------------------------------------------------------------------------

    def _make_commands(self, settings: LinkSettings) -> CommandChannel | None:
        if self._cfg.sync.commands == "off":
            return None
        from edge_runtime.sync.commands.allowed import Proof
        from edge_runtime.sync.commands.channel import CommandChannel

        proof = Proof(self._cfg.sync.commands)
        box = self._cfg.station.name
        return CommandChannel(settings, self.records.topics, box, proof, lambda: self._open_commands(proof))

    def _make_unsigned(self) -> CommandDesk | None:
        """For a station that takes commands from a Sparkplug host alone."""
        if self.commands or not (self.tags and self._cfg.sync.sparkplug.commands):
            return None
        from edge_runtime.sync.commands.allowed import Proof
        from edge_runtime.sync.commands.desk import CommandDesk

        return CommandDesk(lambda: self._open_commands(Proof.SIGNATURE))

    def _open_commands(self, proof: Proof) -> Commands:
        from edge_runtime.sync.commands.book import CommandBook
        from edge_runtime.sync.commands.handlers import handlers
        from edge_runtime.sync.commands.judge import Commands

        book = CommandBook(command_book(self._cfg))
        keys, orders = at_home(self._cfg.sync.keys), handlers(self._cfg, self._run, self)
        return Commands(self._cfg.station.name, proof, keys, book, orders, utc=self._utc, tell=self._told)

    def _utc(self) -> datetime | None:
        """None where nobody keeps the clock right: an expiry cannot be judged then."""
        is_known = self.records.report()["time_quality"] == "synced"
        return datetime.now(UTC) if is_known else None

    def _told(self, row: Mapping[str, str]) -> None:
        self._post(EventKind.COMMAND, dict(row))

    def _post(self, event: EventKind, detail: Mapping[str, Any]) -> None:
        if self._allowance.take():
            self.records.post(event, detail)


def _seconds(words: Mapping[str, Any]) -> float:
    value = words.get("within_s", 1.0)
    if not isinstance(value, int | float) or not 0 <= value <= 60:
        raise UsageError(f"within_s must be from 0 to 60, not {value!r}")
    return float(value)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
