"""A Sparkplug B 3.0 edge node as a state machine: what happened goes in, what to do comes out. No I/O, no clock.

    RESTING --tick--> CONNECTING (CONNECT, SUBSCRIBE) --connected--> [WAITING for the host] --> BORN
       ^                                                                                         |
       +----------------------- disconnected, or LEAVING (NDEATH, DISCONNECT) <------------------+

Order that the specification asks for and this file keeps: will before everything, bdSeq one more for each CONNECT,
subscriptions granted before NBIRTH, NBIRTH with seq 0, then every DBIRTH, then data; seq counts over all of them
modulo 256; a rebirth repeats bdSeq; NDEATH goes out before an intended DISCONNECT. A device that is down at birth is
born with what is known of it and dies at once, so that a host knows its metrics and no DBIRTH has to follow data.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from edge_runtime.core.clock import MS, SECOND
from edge_runtime.core.errors import ProtocolError
from edge_runtime.core.events import EventKind
from edge_runtime.sync.sparkplug.actions import (
    Action,
    Command,
    Connect,
    Disconnect,
    Moment,
    Note,
    Publish,
    Remember,
    Sample,
)
from edge_runtime.sync.sparkplug.board import Board, Tag
from edge_runtime.sync.sparkplug.history import History
from edge_runtime.sync.sparkplug.host import HostState, HostWatch
from edge_runtime.sync.sparkplug.payload import DataType, Metric, Payload, as_type, decode, encode

BD_SEQ = "bdSeq"
REBIRTH = "Node Control/Rebirth"
NEXT_SERVER = "Node Control/Next Server"
MAX_COMMAND_BYTES = 64 * 1024  # a command is a handful of scalars
ANSWER_WAIT_NS = 20 * SECOND  # for CONNACK and SUBACK: longer than the link itself waits
HOST_WAIT_NS = 30 * SECOND  # on one server, where there are others to walk to
REST_NS = (SECOND, 60 * SECOND)  # first and longest rest between attempts, doubled each time, then jittered
LEAVE_REST_NS = 500 * MS  # after leaving on purpose: the broker needs a moment to see that we are gone
REBIRTH_REST_NS = SECOND  # requests that come faster are answered by one birth when the second is over
CLOCK_STEP_MS = 10_000  # the calendar went back by more than this: begin a new birth instead of bending stamps
_RESERVED = frozenset("+/#")


class Phase(StrEnum):
    RESTING = "resting"
    CONNECTING = "connecting"
    WAITING = "waiting for the primary host"
    BORN = "born"
    LEAVING = "leaving"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """How the node is addressed. Raises ValueError for a name that MQTT or Sparkplug reserves."""

    group: str
    node: str
    primary_host: str | None = None  # wait for this host application before being born
    servers: int = 1  # how many brokers there are to walk

    def __post_init__(self) -> None:
        for what, name in (("group", self.group), ("node", self.node), ("primary host", self.primary_host or "-")):
            check_id(what, name)

    def topic(self, kind: str, device: str | None = None) -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.node}" + (f"/{device}" if device else "")


def check_id(what: str, name: str) -> None:
    if not name or _RESERVED & set(name) or "\0" in name or len(name.encode(errors="replace")) > 1024:
        raise ValueError(f"{what} {name!r} cannot be part of a Sparkplug topic; use letters, digits, - and _")


class SparkplugNode:
    """One edge node with its devices. `bd_seq` is what was last remembered, 0 on a new box.

    Every method returns what to do, in order. `sample` may come at any time; what changes while the node is not born
    is kept and sent later, marked historical.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        node_tags: Sequence[Tag],
        device_tags: Mapping[str, Sequence[Tag]],
        *,
        bd_seq: int = 0,
        seed: int | None = None,
    ) -> None:
        for device in device_tags:
            check_id("device", device)
        aliases = count(1)
        controls = [Tag(REBIRTH, DataType.BOOLEAN, is_writable=True, has_alias=False)]
        if identity.servers > 1:
            controls.append(Tag(NEXT_SERVER, DataType.BOOLEAN, is_writable=True, has_alias=False))
        self.identity = identity
        self.phase = Phase.RESTING
        self.server = 0
        self.births = 0
        self._boards: dict[str | None, Board] = {None: Board([*controls, *node_tags], aliases)}
        for device, tags in device_tags.items():
            self._boards[device] = Board(tags, aliases)
        self._boards[None].set(dict.fromkeys((tag.name for tag in controls), False), 0)
        self._alive: dict[str, bool] = dict.fromkeys(device_tags, False)
        self._history = History()
        self.watch = HostWatch(identity.primary_host) if identity.primary_host else None
        self._random = random.Random(seed)
        self._bd_seq = bd_seq % 256  # of the will in force; before the first CONNECT, of the one to come
        self._next_bd_seq = self._bd_seq
        self._seq = 0
        self._stamp_ms = 0
        self._due_ns = 0  # when the present phase is over, whatever comes
        self._rest_until_ns = 0  # after leaving on purpose
        self._host = HostState.UNKNOWN  # on this connection
        self._attempts = 0
        self._wants_rebirth = False
        self._told: set[str] = set()  # of this outage: a night without a network is one story, not one an attempt

    # -- what happens to the connection ------------------------------------------------------------------------------

    def tick(self, now: Moment) -> list[Action]:
        """Call a few times a second. Starts connecting, gives up waiting, answers a rebirth that had to rest."""
        if self.phase is Phase.BORN:
            return self._birth(now) if self._wants_rebirth and now.ns >= self._due_ns else []
        if now.ns < self._due_ns:
            return []
        if self.phase is Phase.RESTING:
            return self._connect(now)
        if self.phase in (Phase.CONNECTING, Phase.LEAVING):
            return [Disconnect(), *self.disconnected(now, "no answer to CONNECT")]
        if self.phase is Phase.WAITING and self.identity.servers > 1:
            return self._leave(now, "primary host is not here", next_server=True)
        return []

    def connect_failed(self, now: Moment, reason: str) -> list[Action]:
        """No CONNECT packet left the box, so its bdSeq is not used up."""
        self._next_bd_seq = self._bd_seq
        return [Remember(self._bd_seq), *self.disconnected(now, reason)]

    def connected(self, now: Moment) -> list[Action]:
        """The broker accepted the session and granted the subscriptions."""
        if self.phase is not Phase.CONNECTING:
            return []
        if self.watch is None:
            return self._birth(now)
        self.phase, self._due_ns = Phase.WAITING, now.ns + HOST_WAIT_NS
        return self._look_for_host(now)

    def disconnected(self, now: Moment, reason: str) -> list[Action]:
        """The connection is gone, whoever ended it."""
        if self.phase in (Phase.RESTING, Phase.STOPPED):
            return []
        was, self.phase = self.phase, Phase.RESTING
        if was is Phase.LEAVING:
            self._due_ns = self._rest_until_ns
            return []
        if was is not Phase.BORN:
            self.server = (self.server + 1) % self.identity.servers
        self._due_ns = now.ns + self._rest_ns()
        detail = {"server": self.server, "phase": was.value, "reason": reason}
        return _once(self._told, "lost", EventKind.SPARKPLUG_LOST, detail)

    def stop(self, now: Moment) -> list[Action]:
        """End for good: NDEATH and DISCONNECT where there is a session."""
        is_open = self.phase in (Phase.WAITING, Phase.BORN)
        actions: list[Action] = [self._death(now)] if is_open else []
        has_link = is_open or self.phase in (Phase.CONNECTING, Phase.LEAVING)
        self.phase = Phase.STOPPED
        return [*actions, Disconnect()] if has_link else []

    def rebirth(self, now: Moment) -> list[Action]:
        """Be born anew, as a host asks for when it missed something. Not more often than REBIRTH_REST_NS."""
        if self.phase is not Phase.BORN:
            return []
        self._wants_rebirth = True
        return self.tick(now)

    # -- what is measured --------------------------------------------------------------------------------------------

    def sample(self, sample: Sample, now: Moment) -> list[Action]:
        """Take the present values; publish what changed, devices that came or went, or keep it for later."""
        if self.phase is Phase.BORN and now.utc_ms < self._stamp_ms - CLOCK_STEP_MS:
            self._wants_rebirth = True
        changes: dict[str | None, list[Metric]] = {None: self._boards[None].set(sample.node, self._stamp(now))}
        came: list[str] = []
        gone: list[str] = []
        for device, values in sample.devices.items():
            if device not in self._alive:
                continue
            had, self._alive[device] = self._alive[device], values is not None
            changes[device] = self._boards[device].set(values or {}, self._stamp(now))
            if had != self._alive[device]:
                (came if self._alive[device] else gone).append(device)
        if self.phase is not Phase.BORN:
            self._history.add(changes, now)
            return []
        if self._wants_rebirth:
            return self.tick(now)  # the birth tells it all
        actions = [self._data_message(d, metrics, now) for d, metrics in changes.items() if metrics and d not in came]
        actions += [self._device_birth(device, now) for device in came]
        return [*actions, *(self._device_death(device, now) for device in gone)]

    # -- what a host says --------------------------------------------------------------------------------------------

    def received(self, topic: str, payload: bytes, now: Moment, *, retained: bool = False) -> list[Action]:
        """A message on one of the subscriptions. Nothing that can be in it raises."""
        if self.watch and topic == self.watch.old_topic:
            self.watch.read_old(payload)
            return []
        if self.watch and topic == self.watch.topic:
            said = self.watch.read(self.server, payload)
            self._host = self._host if said is HostState.UNKNOWN else said
            return self._look_for_host(now)
        if self.phase is not Phase.BORN or retained:
            return [_refused(topic, "retained" if retained else "not born")]  # a kept command is a replayed one
        try:
            device, metrics = self._command_metrics(topic, payload)
        except ProtocolError as err:
            return [_refused(topic, str(err))]
        actions: list[Action] = []
        for metric in metrics:
            actions += self._written(device, metric, now)
        return actions

    def _command_metrics(self, topic: str, payload: bytes) -> tuple[str | None, Sequence[Metric]]:
        if len(payload) > MAX_COMMAND_BYTES:
            raise ProtocolError(f"{len(payload)} bytes, more than {MAX_COMMAND_BYTES}")
        if topic == self.identity.topic("NCMD"):
            return None, decode(payload).metrics
        device = topic.rpartition("/")[2]
        if topic != self.identity.topic("DCMD", device) or device not in self._alive:
            raise ProtocolError("no such device")
        return device, decode(payload).metrics

    def _written(self, device: str | None, metric: Metric, now: Moment) -> list[Action]:
        """One metric of one command."""
        tag = self._boards[device].find(metric.name, metric.alias)
        where = f"{device or self.identity.node}: {metric.name if metric.name is not None else metric.alias}"
        if tag is None or not tag.is_writable:
            return [_refused(where, "not writable" if tag else "unknown metric")]
        try:
            value = as_type(metric.value, tag.datatype)
        except ProtocolError as err:
            return [_refused(where, str(err))]
        if value is None or metric.datatype not in (None, tag.datatype):
            return [_refused(where, f"not a {tag.datatype.name}")]
        if device is None and tag.name == REBIRTH:
            return self.rebirth(now) if value is True else []
        if device is None and tag.name == NEXT_SERVER:
            return self._leave(now, "asked to go to the next server", next_server=True) if value is True else []
        return [Command(device, tag.name, value, metric.timestamp_ms)]

    def _look_for_host(self, now: Moment) -> list[Action]:
        """STATE may come before the last SUBACK does: what it said is kept until the node has to know."""
        if self._host is HostState.ONLINE and self.phase is Phase.WAITING:
            return self._birth(now)
        if self._host is HostState.OFFLINE and self.phase is Phase.BORN:
            return self._leave(now, "primary host went offline", next_server=True)
        if self._host is HostState.OFFLINE and self.phase is Phase.WAITING and self.identity.servers > 1:
            return self._leave(now, "primary host is offline", next_server=True, rest=True)
        return []

    # -- how it is said ----------------------------------------------------------------------------------------------

    def _connect(self, now: Moment) -> list[Action]:
        self._bd_seq = self._next_bd_seq
        self._next_bd_seq = (self._bd_seq + 1) % 256
        self.phase, self._due_ns = Phase.CONNECTING, now.ns + ANSWER_WAIT_NS
        self._host = HostState.UNKNOWN
        self._attempts += 1
        self._stamp_ms = now.utc_ms
        will = encode(self._obituary(now))
        hint = self.watch.old_topic if self.watch else ""
        connect = Connect(self.server, self.identity.topic("NDEATH"), will, self._filters(), hint)
        return [Remember(self._next_bd_seq), connect]

    def _filters(self) -> tuple[tuple[str, int], ...]:
        filters = [(self.identity.topic("NCMD"), 1)]
        filters += [(self.identity.topic("DCMD", d), 1) for d, b in self._boards.items() if d and b.is_writable()]
        return (*filters, *([(self.watch.topic, 1)] if self.watch else []))

    def _leave(self, now: Moment, why: str, *, next_server: bool, rest: bool = False) -> list[Action]:
        if next_server:
            self.server = (self.server + 1) % self.identity.servers
        death = self._death(now)
        self.phase, self._due_ns = Phase.LEAVING, now.ns + ANSWER_WAIT_NS
        self._rest_until_ns = now.ns + (self._rest_ns() if rest else LEAVE_REST_NS)
        note = _once(self._told, why, EventKind.SPARKPLUG_LEFT, {"why": why, "next_server": self.server})
        return [death, *note, Disconnect()]

    def _birth(self, now: Moment) -> list[Action]:
        """NBIRTH, a DBIRTH for each device, what was kept, a DDEATH for each device that is down."""
        self.phase, self._attempts, self._wants_rebirth = Phase.BORN, 0, False
        self._due_ns = now.ns + REBIRTH_REST_NS
        self._stamp_ms, self._seq = now.utc_ms, 0
        self.births += 1
        self._told.clear()
        stamp = self._stamp(now)
        number = Metric(BD_SEQ, self._bd_seq, DataType.INT64, timestamp_ms=stamp)
        birth = encode(Payload([number, *self._boards[None].birth(stamp)], stamp, self._take_seq()))
        actions: list[Action] = [Publish(self.identity.topic("NBIRTH"), birth)]
        actions += [self._device_birth(device, now) for device in self._alive]
        actions += [self._data_message(device, metrics, now) for device, metrics in self._history.take()]
        actions += [self._device_death(device, now) for device, alive in self._alive.items() if not alive]
        return [*actions, Note(EventKind.SPARKPLUG_BORN, {"server": self.server, "bdSeq": self._bd_seq})]

    def _device_birth(self, device: str, now: Moment) -> Publish:
        metrics = self._boards[device].birth(self._stamp(now))
        payload = Payload(metrics, self._stamp(now), self._take_seq())
        return Publish(self.identity.topic("DBIRTH", device), encode(payload))

    def _device_death(self, device: str, now: Moment) -> Publish:
        return Publish(self.identity.topic("DDEATH", device), encode(Payload((), self._stamp(now), self._take_seq())))

    def _data_message(self, device: str | None, metrics: Sequence[Metric], now: Moment) -> Publish:
        payload = Payload(metrics, self._stamp(now), self._take_seq())
        return Publish(self.identity.topic("DDATA" if device else "NDATA", device), encode(payload, is_birth=False))

    def _death(self, now: Moment) -> Publish:
        return Publish(self.identity.topic("NDEATH"), encode(self._obituary(now)), qos=1)

    def _obituary(self, now: Moment) -> Payload:
        stamp = self._stamp(now)
        return Payload([Metric(BD_SEQ, self._bd_seq, DataType.INT64, timestamp_ms=stamp)], stamp)

    def _take_seq(self) -> int:
        seq, self._seq = self._seq, (self._seq + 1) % 256
        return seq

    def _stamp(self, now: Moment) -> int:
        """Calendar time that never goes back within one birth, whatever the clock does."""
        self._stamp_ms = max(self._stamp_ms, now.utc_ms)
        return self._stamp_ms

    def _rest_ns(self) -> int:
        """Half to all of a rest that doubles with each attempt, so that a fleet does not come back as one."""
        rest = min(REST_NS[0] << min(max(self._attempts - 1, 0), 16), REST_NS[1])
        return int(rest * self._random.uniform(0.5, 1.0))


def _once(told: set[str], what: str, kind: EventKind, detail: Mapping[str, object]) -> list[Action]:
    """A note, the first time that it is told."""
    if what in told:
        return []
    told.add(what)
    return [Note(kind, detail)]


def _refused(where: str, why: str) -> Note:
    return Note(EventKind.SPARKPLUG_COMMAND_REFUSED, {"where": where, "why": why})
