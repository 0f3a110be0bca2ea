"""All rules over all sessions of a node: CONNECT and will, subscriptions, the course of messages, the end."""

from __future__ import annotations

from collections.abc import Sequence

from spb_course import INT64, PHASES, Course, Memory, Watch, bd_seq, judge_obituary
from spb_host_rules import judge_host
from spb_payload import Payload
from spb_rebirths import judge_rebirths
from spb_sessions import Session
from spb_tally import Tally

DISCONNECT_WITH_WILL = 0x04
HANDOVER_S = 1.0  # how long an old connection may still be closing while the next one opens


def judge(sessions: Sequence[Session], watch: Watch) -> Tally:
    tally = Tally()
    tally.features |= {"host"} if watch.host else set()
    tally.features |= {"servers"} if watch.host and watch.servers > 1 else set()
    memory = Memory()
    for session in sessions:
        _judge_connect(tally, watch, session, memory)
        _judge_subscriptions(tally, watch, session)
        Course(tally, watch, session, memory).judge()
        judge_rebirths(tally, watch, session)
        _judge_end(tally, session)
    _judge_together(tally, watch, sessions)
    if watch.host:
        judge_host(tally, watch.host, watch.servers, watch.ended_s, sessions)
    return tally


def _judge_connect(tally: Tally, watch: Watch, session: Session, memory: Memory) -> None:
    connect, will = session.connect, session.will
    tally.features.add("mqtt50" if connect.level == 5 else "mqtt311")
    if connect.level == 5:
        holds = connect.is_clean and connect.session_expiry_s == 0
        tally.check(holds, "principles-persistence-clean-session-50", f"clean {connect.is_clean}, expiry not 0")
    else:
        tally.check(connect.is_clean, "principles-persistence-clean-session-311", "clean session is off")
    names = f"{PHASES}will-message payloads-ndeath-will-message"
    if not tally.check(connect.will_topic is not None, names, "CONNECT without a will"):
        return
    topic = connect.will_topic
    tally.check(topic == watch.topic("NDEATH"), f"{PHASES}will-message-topic topics-ndeath-topic", f"will to {topic}")
    names = f"{PHASES}will-message-qos payloads-ndeath-will-message-qos"
    tally.check(connect.will_qos == 1, names, f"will has QoS {connect.will_qos}")
    names = f"{PHASES}will-message-will-retained payloads-ndeath-will-message-retain"
    tally.check(not connect.will_retain, names, "will is retained")
    if tally.check(will is not None, f"{PHASES}will-message-payload", "will is no Sparkplug payload") and will:
        _judge_will(tally, will, memory)


def _judge_will(tally: Tally, will: Payload, memory: Memory) -> None:
    judge_obituary(tally, will)
    metric, number = will.metric("bdSeq"), bd_seq(will)
    is_next = number is not None and (memory.bd_seq is None or number == (memory.bd_seq + 1) % 256)
    why = f"bdSeq {number} after {memory.bd_seq}"
    tally.check(is_next, "topics-nbirth-bdseq-increment", why)
    is_int64 = metric is not None and metric.datatype == INT64
    names = f"{PHASES}will-message-payload-bdSeq"
    tally.check(is_next and is_int64 and number in range(256), names, why if is_int64 else "bdSeq is not INT64")
    memory.bd_seq = number


def _judge_subscriptions(tally: Tally, watch: Watch, session: Session) -> None:
    birth = next(session.of("NBIRTH"), None)
    wanted = [(at, qos) for at, topic, qos in session.subscriptions if _covers(topic, watch.topic("NCMD"))]
    if wanted or birth:
        tally.check(bool(wanted), "topics-ncmd-topic", "no subscription to NCMD")
        in_time = bool(wanted) and (birth is None or wanted[0][0] <= birth.at_s)
        why = f"QoS {wanted[0][1]}" if in_time else "none before NBIRTH"
        holds = in_time and wanted[0][1] == 1
        tally.check(holds, "message-flow-edge-node-ncmd-subscribe", f"NCMD subscription: {why}")
    for _, topic, qos in session.subscriptions:
        levels = topic.split("/")
        if levels[:2] == ["spBv1.0", watch.group] and levels[2:3] == ["DCMD"]:
            tally.features.add("dcmd")
            holds = len(levels) == 5 and levels[3] == watch.node
            tally.check(holds, "topics-dcmd-topic", f"subscription to {topic}")
            tally.check(qos == 1, "message-flow-device-dcmd-subscribe", f"{topic} with QoS {qos}")


def _covers(pattern: str, topic: str) -> bool:
    """MQTT topic filter matching (3.1.1 section 4.7)."""
    wanted, given = pattern.split("/"), topic.split("/")
    for n, level in enumerate(wanted):
        if level == "#":
            return True
        if n >= len(given) or level not in ("+", given[n]):
            return False
    return len(wanted) == len(given)


def _judge_end(tally: Tally, session: Session) -> None:
    if session.disconnect is None:
        return
    last = session.messages[-1].kind if session.messages else "nothing"
    names = "operational-behavior-edge-node-intentional-disconnect-ndeath payloads-ndeath-will-message-publisher"
    if session.connect.level == 5:
        reason = session.disconnect.reason
        holds = reason == DISCONNECT_WITH_WILL
        name = "payloads-ndeath-will-message-publisher-disconnect-mqtt50"
        tally.check(holds, name, f"DISCONNECT with reason {reason:#04x}")
    else:
        names += " payloads-ndeath-will-message-publisher-disconnect-mqtt311"
    tally.check(last == "NDEATH", names, f"{last} before DISCONNECT")
    if last == "NDEATH":
        tally.check(True, "operational-behavior-edge-node-intentional-disconnect-packet", "")


def _judge_together(tally: Tally, watch: Watch, sessions: Sequence[Session]) -> None:
    """Who else spoke as this node, and names that differ in case only."""
    unique = "intro-edge-node-id-uniqueness topic-structure-namespace-unique-edge-node-descriptor"
    unique += " payloads-nbirth-edge-node-descriptor"
    single = "operational-behavior-primary-application-state-with-multiple-servers-single-server"
    for n, session in enumerate(sessions):
        end_s = session.ended_s if session.ended_s is not None else watch.ended_s
        others = [other for other in sessions[n + 1 :] if end_s - other.opened_s > HANDOVER_S]
        ids = sorted({other.connect.client_id for other in others} - {session.connect.client_id})
        tally.check(not ids, unique, f"{session.connect.client_id} and {ids} at the same time")
        if "servers" in tally.features:
            tally.check(not others, single, "two connections at the same time")
    devices = {m.device for session in sessions for m in session.messages if m.device}
    if any(session.messages for session in sessions):
        ids = [watch.group, watch.node, *sorted(devices)]
        folded = {name.casefold() for name in ids[2:]}
        tally.check(len(folded) == len(devices), "case-sensitivity-sparkplug-ids", f"ids {ids}")
