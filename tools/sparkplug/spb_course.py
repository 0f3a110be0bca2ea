"""The rules of one session's messages: topics, flags, sequence numbers, times, and births before data."""

from __future__ import annotations

from dataclasses import dataclass, field

from spb_metric_rules import Boards, judge_birth_metrics, judge_data_metrics
from spb_payload import Payload
from spb_sessions import Message, Session
from spb_tally import Tally

REBIRTH = "Node Control/Rebirth"
INT64, BOOLEAN = 4, 11
DAY_MS = 86_400_000
FIRST_MS = 1_000_000_000_000  # September 2001: smaller numbers are seconds, or a clock that was never set
PHASES = "message-flow-edge-node-birth-publish-"


@dataclass(frozen=True, slots=True)
class Watch:
    """What the checker was told, and how long it looked."""

    group: str
    node: str
    host: str | None
    servers: int
    started_utc_ms: int
    ended_s: float

    def topic(self, kind: str, device: str | None = None) -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.node}" + (f"/{device}" if device is not None else "")


@dataclass
class Memory:
    """What holds from one session to the next."""

    devices: set[str] = field(default_factory=set)  # alive, or awaited after a node birth
    bd_seq: int | None = None


def bd_seq(payload: Payload | None) -> int | None:
    metric = payload.metric("bdSeq") if payload else None
    return metric.value if metric and isinstance(metric.value, int) else None


def judge_obituary(tally: Tally, death: Payload) -> None:
    names = [metric.name for metric in death.metrics]
    tally.check(names == ["bdSeq"], "topics-ndeath-payload", f"NDEATH holds {names}")
    tally.check(death.seq is None, "topics-ndeath-seq payloads-ndeath-seq", f"NDEATH has seq {death.seq}")


class Course:
    """One session's messages, one after the other."""

    def __init__(self, tally: Tally, watch: Watch, session: Session, memory: Memory) -> None:
        self.tally, self.watch, self.session, self.memory = tally, watch, session, memory
        self.boards = Boards()
        self.seq: int | None = None
        self.is_born = False
        self.has_data = False  # since the last NBIRTH
        self.alive: set[str] = set()
        self.dead: set[str] = set()
        self.awaited: set[str] = set()  # devices that were alive before NBIRTH and are not born again yet

    def judge(self) -> None:
        for message in self.session.messages:
            if message.levels[0][:3] not in ("spB", "spA"):
                continue  # a node may talk of other things too
            self._topic(message)
            if not message.kind:
                continue
            self._order(message)
            self._flags(message)
            self._payload(message)
        self.memory.devices = self.alive | self.awaited

    def _topic(self, message: Message) -> None:
        check, levels = self.tally.check, message.levels
        is_device = message.kind.startswith("D")
        why = f"published to {'/'.join(levels)}"
        check(levels[0] == "spBv1.0", "topic-structure-namespace-a", why)
        is_known = bool(message.kind) and len(levels) in (4, 5)
        if not check(is_known, "topic-structure", why):
            return
        names = "device-id-associated-message-types" if is_device else "device-id-non-associated-message-types"
        holds = check((len(levels) == 5) == is_device, f"topic-structure-namespace-{names}", why)
        holds = holds and levels[1] == self.watch.group and levels[3] == self.watch.node and levels[0] == "spBv1.0"
        kind = message.kind.lower()
        extra = f" {PHASES}nbirth-topic" if kind == "nbirth" else ""
        if kind == "dbirth":
            extra = " message-flow-device-birth-publish-dbirth-topic"
            extra += " message-flow-device-birth-publish-dbirth-match-edge-node-topic"
        check(holds, f"topics-{kind}-topic{extra}", why)
        is_text = _is_utf8(message.topic)
        check(is_text, "intro-group-id-string intro-edge-node-id-string", why)
        is_sound = is_text and not set("+#\0") & set("".join(levels))
        names = "intro-group-id-chars intro-edge-node-id-chars topic-structure-namespace-valid-group-id"
        check(is_sound, f"{names} topic-structure-namespace-valid-edge-node-id", why)
        if is_device:
            check(is_text, "intro-device-id-string", why)
            check(
                is_sound and bool(message.device),
                "intro-device-id-chars topic-structure-namespace-valid-device-id",
                why,
            )

    def _order(self, message: Message) -> None:
        check, kind = self.tally.check, message.kind
        accepted = self.session.accepted_s is not None and self.session.accepted_s <= message.at_s
        if kind in ("NBIRTH", "DBIRTH"):
            check(accepted, f"{PHASES}connect", f"{kind} before the session was accepted")
        if kind == "NDEATH":
            return
        is_first_birth = kind == "NBIRTH" and not self.is_born
        if is_first_birth or not self.is_born:
            check(is_first_birth, "principles-birth-certificates-order", f"{kind} before NBIRTH")
        if kind == "NBIRTH":
            self._node_born()
        elif kind in ("NDATA", "DDATA"):
            self.has_data = True
            why = f"{kind} before " + (f"DBIRTH of {sorted(self.awaited)}" if self.is_born else "NBIRTH")
            check(self.is_born and not self.awaited, f"payloads-{kind.lower()}-order", why)
        if message.device is not None:
            self._device_order(message.device, kind)

    def _node_born(self) -> None:
        before = self.alive | self.awaited if self.is_born else self.memory.devices
        self.awaited, self.alive = set(before), set()
        self.is_born, self.has_data = True, False

    def _device_order(self, device: str, kind: str) -> None:
        check = self.tally.check
        self.tally.features.add("device")
        if kind == "DBIRTH":
            check(self.is_born, "message-flow-device-birth-publish-nbirth-wait", f"DBIRTH of {device} before NBIRTH")
            in_time = self.is_born and (not self.has_data or device in self.dead)
            check(in_time, "payloads-dbirth-order", f"DBIRTH of {device} after data")
            is_single = device not in self.alive
            check(is_single, "topic-structure-namespace-unique-device-id", f"{device} born twice")
            self.alive.add(device)
            self.awaited.discard(device)
            self.dead.discard(device)
        elif kind == "DDATA":
            check(device in self.alive, "payloads-ddata-order", f"DDATA of {device}, which is not born")
            if device in self.dead:
                check(False, "operational-behavior-device-ddeath", f"DDATA of {device} after its DDEATH")
        elif kind == "DDEATH":
            check(device in self.alive, "operational-behavior-device-ddeath", f"DDEATH of {device}, which is not born")
            self.alive.discard(device)
            self.dead.add(device)

    def _flags(self, message: Message) -> None:
        if message.kind == "NDEATH":
            return
        check, kind = self.tally.check, message.kind.lower()
        why = f"{message.kind} with QoS {message.qos}, retain {message.retain}"
        flow = {"nbirth": PHASES + "nbirth", "dbirth": "message-flow-device-birth-publish-dbirth"}.get(kind)
        check(message.qos == 0 and not message.retain, f"topics-{kind}-mqtt", why)
        if kind != "ddeath":
            check(message.qos == 0, f"payloads-{kind}-qos" + (f" {flow}-qos" if flow else ""), why)
            check(not message.retain, f"payloads-{kind}-retain" + (f" {flow}-retained" if flow else ""), why)

    def _payload(self, message: Message) -> None:
        check, kind, payload = self.tally.check, message.kind, message.payload
        if kind in ("NBIRTH", "DBIRTH"):
            flow = PHASES + "nbirth" if kind == "NBIRTH" else "message-flow-device-birth-publish-dbirth"
            check(payload is not None, f"{flow}-payload", f"{kind} is no Sparkplug payload")
        if payload is None:
            check(False, "payloads-sequence-num-always-included", f"{kind} cannot be read")
            return
        self._times(message, payload)
        if kind == "NDEATH":
            judge_obituary(self.tally, payload)
            why = f"NDEATH has bdSeq {bd_seq(payload)}, the will {bd_seq(self.session.will)}"
            check(bd_seq(payload) == bd_seq(self.session.will), "payloads-ndeath-bdseq", why)
            return
        self._seq(kind, payload)
        if kind == "NBIRTH":
            self.boards.clear()
            self._node_birth(payload)
        if kind in ("NBIRTH", "DBIRTH"):
            judge_birth_metrics(self.tally, self.boards, message.device, payload)
        elif kind in ("NDATA", "DDATA"):
            judge_data_metrics(self.tally, self.boards, message.device, payload)

    def _times(self, message: Message, payload: Payload) -> None:
        check, kind = self.tally.check, message.kind.lower()
        if kind != "ndeath":
            names = f"payloads-{kind}-timestamp" + ("" if kind == "ddeath" else f" topics-{kind}-timestamp")
            check(payload.timestamp is not None, names, f"{message.kind} without timestamp")
        latest = self.watch.started_utc_ms + message.at_s * 1000 + DAY_MS
        for stamp, names in (
            (payload.timestamp, "payloads-timestamp-in-UTC"),
            *((metric.timestamp, "payloads-metric-timestamp-in-UTC") for metric in payload.metrics),
        ):
            if stamp is not None:
                check(FIRST_MS <= stamp <= latest, names, f"{message.kind} with timestamp {stamp}")

    def _seq(self, kind: str, payload: Payload) -> None:
        check, seq, low = self.tally.check, payload.seq, kind.lower()
        check(seq is not None, f"payloads-sequence-num-always-included payloads-{low}-seq", f"{kind} without seq")
        if kind == "NBIRTH":
            names = f"payloads-sequence-num-req-nbirth payloads-nbirth-seq {PHASES}nbirth-payload-seq"
            check(seq in range(256), names, f"NBIRTH with seq {seq}")
            check(seq == 0, "topics-nbirth-seq-num", f"NBIRTH with seq {seq}")
        elif self.seq is not None:
            names = {
                "DBIRTH": "topics-dbirth-seq payloads-dbirth-seq-inc"
                " message-flow-device-birth-publish-dbirth-payload-seq",
                "DDEATH": "topics-ddeath-seq-num payloads-ddeath-seq-inc payloads-ddeath-seq-number",
            }.get(kind, f"topics-{low}-seq-num payloads-{low}-seq-inc")
            holds = seq == (self.seq + 1) % 256
            check(holds, f"payloads-sequence-num-incrementing {names}", f"{kind} with seq {seq} after {self.seq}")
        self.seq = seq if seq is not None else None if self.seq is None else (self.seq + 1) % 256

    def _node_birth(self, payload: Payload) -> None:
        check = self.tally.check
        number, will = bd_seq(payload), bd_seq(self.session.will)
        names = "topics-nbirth-bdseq-included payloads-nbirth-bdseq"
        check(number is not None, names, "NBIRTH without bdSeq")
        matches = number is not None and number == will
        why = f"NBIRTH has bdSeq {number}, the will {will}"
        names = "topics-nbirth-bdseq-matching payloads-nbirth-bdseq-repeat payloads-ndeath-bdseq"
        check(matches, names, why)
        metric = payload.metric("bdSeq")
        is_int64 = metric is not None and metric.datatype == INT64
        check(matches and is_int64, f"{PHASES}nbirth-payload-bdSeq", why if is_int64 else "bdSeq is not INT64")
        control, names = payload.metric(REBIRTH), "operational-behavior-data-commands-rebirth-"
        both = "topics-nbirth-rebirth-metric payloads-nbirth-rebirth-req"
        if not check(control is not None, f"{names}name", f"NBIRTH without {REBIRTH}") or control is None:
            check(False, f"{both} {names}datatype {names}value", f"NBIRTH without {REBIRTH}")
            return
        is_flag = check(control.datatype == BOOLEAN, f"{names}datatype", f"datatype {control.datatype}")
        is_off = check(control.value is False, f"{names}value", f"{REBIRTH} is {control.value}")
        check(is_flag and is_off, both, f"{REBIRTH} is {control.value} of datatype {control.datatype}")
        check(control.alias is None, f"{names}name-aliases", f"{REBIRTH} has alias {control.alias}")


def _is_utf8(topic: bytes) -> bool:
    try:
        topic.decode()
    except UnicodeDecodeError:
        return False
    return True
