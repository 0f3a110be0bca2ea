"""What a node does when a host asks it to be born again."""

from __future__ import annotations

from collections.abc import Sequence

from spb_course import REBIRTH, Watch, bd_seq
from spb_payload import PayloadError, read
from spb_sessions import Message, Session
from spb_tally import Tally

ON_ITS_WAY_S = 0.3  # what a node had already sent when a request passed it on the wire
REBIRTH_WITHIN_S = 5.0


def judge_rebirths(tally: Tally, watch: Watch, session: Session) -> None:
    """What followed a request to be born again that a host sent."""
    names = "operational-behavior-data-commands-rebirth-action-"
    last_s = session.ended_s if session.ended_s is not None else watch.ended_s
    for asked_s, topic, payload in session.heard:
        if topic != watch.topic("NCMD") or not _asks_rebirth(payload) or not any(_before(session, "NBIRTH", asked_s)):
            continue
        later = [message for message in session.messages if message.at_s > asked_s]
        at = next((n for n, message in enumerate(later) if message.kind == "NBIRTH"), None)
        if at is None:
            if last_s - asked_s > REBIRTH_WITHIN_S:
                tally.check(False, f"{names}1 {names}2", f"no NBIRTH within {REBIRTH_WITHIN_S:.0f} s of the request")
            continue
        early = [m.kind for m in later[:at] if m.kind.endswith("DATA") and m.at_s > asked_s + ON_ITS_WAY_S]
        tally.check(not early, f"{names}1", f"{early[:3]} between request and NBIRTH")
        before, after = _devices_before(session, later[at]), _devices_after(later[at + 1 :])
        is_over = len(later) > at + 1 + len(after) or last_s - later[at].at_s > ON_ITS_WAY_S
        if is_over:
            tally.check(before <= after, f"{names}2", f"no DBIRTH of {sorted(before - after)}")
        holds = bd_seq(later[at].payload) == bd_seq(session.will)
        tally.check(holds, f"{names}3", f"bdSeq {bd_seq(later[at].payload)} on rebirth")


def _before(session: Session, kind: str, at_s: float) -> list[bool]:
    return [True for message in session.of(kind) if message.at_s <= at_s]


def _asks_rebirth(data: bytes) -> bool:
    try:
        control = read(data).metric(REBIRTH)
    except PayloadError:
        return False
    return control is not None and control.value is True


def _devices_before(session: Session, birth: Message) -> set[str]:
    alive: set[str] = set()
    for message in session.messages:
        if message is birth:
            return alive
        if message.device and message.kind == "DBIRTH":
            alive.add(message.device)
        elif message.device and message.kind == "DDEATH":
            alive.discard(message.device)
    return alive


def _devices_after(messages: Sequence[Message]) -> set[str]:
    born: set[str] = set()
    for message in messages:
        if message.kind != "DBIRTH":
            break
        born.add(message.device or "")
    return born
