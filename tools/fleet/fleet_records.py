"""What a message of the stream says: a record, the state of a box, or something to set aside. Pure: no I/O, no clock.

The subject says who speaks, because the broker lets a box publish only under its own name; the record must agree.
NATS maps `edge/site/line/box/rec` to `edge.site.line.box.rec`, and a dot within a name to `//`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from edge_runtime.sync.records.format import SCHEMA, Kind

SUBJECTS = ("edge.*.*.*.rec", "edge.*.*.*.state")  # what the stream keeps, and `read` understands
STATES = ("online", "offline")
MOST_SEQ = 2**62  # beyond any counter, within a bigint
MOST_PAYLOAD = 1_000_000  # bytes of a bad message that are kept
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EPOCH = re.compile(r"[0-9a-f]{1,64}")
_BIGINT = 2**63

Span = tuple[int, int]  # first and last, both included


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the stream handed it out."""

    subject: str
    payload: bytes
    heard_at: datetime  # when the broker had it, aware
    is_redelivered: bool = False  # the stream itself repeats it: an acknowledgement of ours was lost or late


@dataclass(frozen=True, slots=True)
class Place:
    site: str
    line: str
    box: str

    def topic(self, leaf: str) -> str:
        return f"edge/{self.site}/{self.line}/{self.box}/{leaf}"


@dataclass(frozen=True, slots=True)
class Name:
    """What a record is called for ever."""

    box: str
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Record:
    delivery: Delivery
    place: Place
    name: Name
    content: int  # 64 bits of BLAKE2b over the payload: the same name must always have the same
    kind: str
    monotonic_ns: int
    time: datetime
    time_quality: str
    journal: str
    run: int | None
    model: str | None
    model_digest: str | None
    config_digest: str | None
    part_row: int | None
    revision: int | None
    verdict: str | None
    score: float | None
    data: str  # JSON
    dropped: Sequence[Span]  # numbers that will never come, as this record says


@dataclass(frozen=True, slots=True)
class BoxState:
    delivery: Delivery
    place: Place
    state: str
    why: str


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message that is no record. With a name it is as safe as a record, so the box may delete it."""

    delivery: Delivery
    reason: str
    place: Place | None = None
    name: Name | None = None

    @property
    def digest(self) -> str:
        """The same for the same message, however often it is sent."""
        message = self.delivery.subject.encode() + b"\n" + self.delivery.payload
        return hashlib.blake2b(message, digest_size=16).hexdigest()


Read = Record | BoxState | SetAside


class _Bad(ValueError):
    """What is wrong with a message."""


def content_of(payload: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(payload, digest_size=8).digest(), "big", signed=True)


def read(delivery: Delivery) -> Read:
    """Never raises: what makes no sense is set aside with the reason, under its name as far as it has one."""
    place: Place | None = None
    name: Name | None = None
    try:
        place, leaf = read_subject(delivery.subject)
        message = _object(delivery.payload)
        if leaf == "state":
            return _state(delivery, place, message)
        name = _name(place, message)
        return _record(delivery, place, name, message)
    except _Bad as err:
        return SetAside(delivery, str(err), place, name)


def read_subject(subject: str) -> tuple[Place, str]:
    """`edge.north.line-2.box//7.rec` -> (north, line-2, box.7), rec. Raises ValueError."""
    tokens = [token.replace("//", ".") for token in subject.split(".")]
    if len(tokens) != 5 or tokens[0] != "edge" or tokens[4] not in ("rec", "state"):
        raise _Bad("the subject is not edge.<site>.<line>.<box>.rec or .state")
    for token in tokens[1:4]:
        if not _NAME.fullmatch(token):
            raise _Bad("a name in the subject is not letters, digits, dot, dash and underscore, 64 at most")
    return Place(*tokens[1:4]), tokens[4]


def _object(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload.decode(), parse_constant=_refuse)
    except RecursionError as err:
        raise _Bad("nested too deeply") from err
    except ValueError as err:  # JSONDecodeError and UnicodeDecodeError are
        raise _Bad(f"not JSON: {err}") from err
    if not isinstance(found, dict):
        raise _Bad("not a JSON object")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _state(delivery: Delivery, place: Place, message: dict[str, Any]) -> BoxState:
    state, why = message.get("state"), message.get("why", "")
    if state not in STATES or not isinstance(why, str):
        raise _Bad("state must be online or offline, and why a text")
    if message.get("box") != place.box:
        raise _Bad("the message names another box than the subject")
    return BoxState(delivery, place, state, _storable(why)[:200])


def _name(place: Place, message: dict[str, Any]) -> Name:
    box, epoch, seq = message.get("box"), message.get("epoch"), message.get("seq")
    if box != place.box:
        raise _Bad("the message names another box than the subject")
    if not isinstance(epoch, str) or not _EPOCH.fullmatch(epoch):
        raise _Bad("epoch must be 1 to 64 hex digits")
    if not _is_int(seq) or not 1 <= seq < MOST_SEQ:
        raise _Bad("seq must be a whole number from 1")
    return Name(place.box, epoch, seq)


def _record(delivery: Delivery, place: Place, name: Name, message: dict[str, Any]) -> Record:
    if message.get("schema") != SCHEMA:
        raise _Bad(f"schema must be {SCHEMA}: update the consumer, or the box")
    data = message.get("data")
    if not isinstance(data, dict):
        raise _Bad("data must be an object")
    kind = _text(message, "kind")
    is_decision = kind == Kind.DECISION
    has_part = is_decision or kind == Kind.LABEL
    return Record(
        delivery,
        place,
        name,
        content_of(delivery.payload),
        kind,
        _integer(message, "monotonic_ns"),
        _time(message),
        _text(message, "time_quality"),
        _text(message, "journal"),
        _optional_integer(message, "run"),
        _optional_text(message, "model"),
        _optional_text(message, "model_digest"),
        _optional_text(message, "config_digest"),
        _optional_integer(data, "row") if has_part else None,
        _optional_integer(data, "revision", 2**31) if is_decision else None,
        _optional_text(data, "verdict") if is_decision else None,
        _optional_number(data, "score") if is_decision else None,
        _json(data),
        dropped_spans(data, name.seq) if kind == Kind.DROP else (),
    )


def dropped_spans(data: dict[str, Any], seq: int) -> Sequence[Span]:
    """The numbers that a `drop` record gives up. What makes no sense there gives nothing up."""
    found = data.get("seqs")
    pairs = [pair for pair in found if isinstance(pair, list) and len(pair) == 2] if isinstance(found, list) else []
    return [(a, b) for a, b in pairs if _is_int(a) and _is_int(b) and 1 <= a <= b < seq]


def _time(message: dict[str, Any]) -> datetime:
    try:
        found = datetime.fromisoformat(_text(message, "time"))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as err:
        raise _Bad("time must be ISO 8601") from err


def _text(message: dict[str, Any], key: str) -> str:
    found = message.get(key)
    if not isinstance(found, str) or len(found) > 200:
        raise _Bad(f"{key} must be a text of at most 200 characters")
    return _storable(found)


def _optional_text(message: dict[str, Any], key: str) -> str | None:
    return None if message.get(key) is None else _text(message, key)


def _integer(message: dict[str, Any], key: str, limit: int = _BIGINT) -> int:
    found = message.get(key)
    if not _is_int(found) or not -limit <= found < limit:
        raise _Bad(f"{key} must be a whole number")
    return found


def _optional_integer(message: dict[str, Any], key: str, limit: int = _BIGINT) -> int | None:
    return None if message.get(key) is None else _integer(message, key, limit)


def _optional_number(message: dict[str, Any], key: str) -> float | None:
    found = message.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise _Bad(f"{key} must be a number")
    try:
        return float(found)
    except OverflowError as err:
        raise _Bad(f"{key} must be a number of usual size") from err


def _json(data: dict[str, Any]) -> str:
    try:
        return _storable(json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError) as err:
        raise _Bad(f"data cannot be stored: {err}") from err


def _storable(text: str) -> str:
    """PostgreSQL keeps neither NUL nor half a surrogate pair."""
    if "\x00" in text:
        raise _Bad("a text holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise _Bad("a text holds half a character") from err
    return text


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
