"""The rules of a node that waits for a primary host: what STATE said to it, and what it did then."""

from __future__ import annotations

import json
from collections.abc import Sequence

from spb_sessions import Session
from spb_tally import Tally

LEAVE_WITHIN_S = 3.0
RECONNECT_WITHIN_S = 90.0  # a node may rest up to a minute between attempts
STAY_S = 0.3  # having stayed that long after a message that means nothing, it was ignored
_WAIT = "message-flow-edge-node-birth-publish-phid-wait"
_END = "operational-behavior-edge-node-termination-host-offline"
_SERVERS = "operational-behavior-primary-application-state-with-multiple-servers-"


def judge_host(tally: Tally, host: str, servers: int, ended_s: float, sessions: Sequence[Session]) -> None:
    newest: dict[int, int] = {}  # by server: the timestamp of the last STATE that counted
    for n, session in enumerate(sessions):
        after = sessions[n + 1] if n + 1 < len(sessions) else None
        _judge_session(tally, host, servers, ended_s, session, after, newest)


def _judge_session(
    tally: Tally,
    host: str,
    servers: int,
    ended_s: float,
    session: Session,
    after: Session | None,
    newest: dict[int, int],
) -> None:
    check = tally.check
    end_s = session.ended_s if session.ended_s is not None else ended_s
    births = [message.at_s for message in session.of("NBIRTH")]
    topic = f"spBv1.0/STATE/{host}"
    heard = [(at, state) for at, where, data in session.heard if where == topic and (state := state_of(data))]
    if births:
        asks = any(where == topic for _, where, _ in session.subscriptions)
        check(asks, f"{_WAIT} {_WAIT}-id", f"no subscription to {topic}")
        before = [state for at, state in heard if at <= births[0]]
        check(bool(before), f"{_WAIT}-id", f"NBIRTH before any STATE of {host}")
    is_online = False
    for at, online, is_fresh, until in _with_spans(heard, newest, session.server, end_s):
        born_then = any(at <= birth < until for birth in births)
        was_born = any(birth <= at for birth in births)
        if not is_fresh:
            _judge_straggler(tally, online, was_born, born_then, at, until, session, is_online)
            continue
        is_online = online
        names = f"{_WAIT} {_WAIT}-online"
        names += " operational-behavior-edge-node-birth-sequence-wait" if servers > 1 else ""
        if born_then and not was_born:
            check(online, names, "NBIRTH while the host is offline")
        if not online and was_born and not session.was_cut and ended_s - at > LEAVE_WITHIN_S:
            _judge_leaving(tally, servers, at, ended_s, session, after)


def _with_spans(
    heard: list[tuple[float, tuple[bool, int]]], newest: dict[int, int], server: int, end_s: float
) -> list[tuple[float, bool, bool, float]]:
    """Each STATE with whether it counts, and how long it was the last word: until the next one that counts."""
    fresh = []
    for _, (_, stamp) in heard:
        fresh.append(stamp >= newest.get(server, 0))
        newest[server] = max(stamp, newest.get(server, 0))
    spans = []
    for n, (at, (online, _)) in enumerate(heard):
        until = next((heard[k][0] for k in range(n + 1, len(heard)) if fresh[k]), end_s)
        spans.append((at, online, fresh[n], until))
    return spans


def _judge_straggler(
    tally: Tally,
    online: bool,
    was_born: bool,
    is_born: bool,
    at: float,
    until: float,
    session: Session,
    is_online: bool,
) -> None:
    """A STATE older than the last one must change nothing."""
    if online and not was_born and not is_online and (is_born or until - at >= STAY_S or until == session.ended_s):
        tally.check(not is_born, f"{_WAIT}-timestamp", "NBIRTH after an online STATE that was out of date")
    if not online and was_born and until - at >= STAY_S:
        # one that comes later has a reason of its own, such as the end of the node
        died = any(at <= message.at_s <= min(until, at + LEAVE_WITHIN_S) for message in session.of("NDEATH"))
        tally.check(not died, f"{_END}-timestamp", "NDEATH after an offline STATE that was out of date")


def _judge_leaving(
    tally: Tally, servers: int, at: float, ended_s: float, session: Session, after: Session | None
) -> None:
    check = tally.check
    died = any(0 <= message.at_s - at <= LEAVE_WITHIN_S for message in session.of("NDEATH"))
    check(died, "message-flow-edge-node-birth-publish-phid-offline", "no NDEATH when the host went offline")
    left = session.ended_s is not None and session.ended_s - at <= LEAVE_WITHIN_S
    check(left, _END, "stayed connected when the host went offline")
    if not left:
        if servers > 1:
            check(False, f"{_SERVERS}walk", "stayed on a server without the host")
        return
    if after is None and ended_s - at < RECONNECT_WITHIN_S:
        return
    is_next = after is not None and (servers == 1 or after.server != session.server)
    check(is_next, f"{_END}-reconnect", "did not connect again" + (" to another server" if servers > 1 else ""))
    if servers > 1:
        check(is_next, f"{_SERVERS}walk", "did not go to the next server")


def state_of(payload: bytes) -> tuple[bool, int] | None:
    """A STATE payload as (online, timestamp), None when it is malformed."""
    try:
        said = json.loads(payload)
        return bool(said["online"]), int(said["timestamp"])
    except (ValueError, TypeError, KeyError):
        return None
