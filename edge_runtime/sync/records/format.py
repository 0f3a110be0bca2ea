"""What a record looks like: one JSON object, the same envelope around every kind. `RECORDS.md` documents it.

Pure functions from rows of the journal (mappings with its column names) to drafts; the outbox numbers and encodes
them. `records.schema.json` beside this file is the JSON Schema; a test holds both together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from edge_runtime.core.events import EventKind, severity_of
from edge_runtime.recording.reader import iso_utc
from edge_runtime.recording.wall_clock import WallClock

SCHEMA = "edge-runtime/record/1"
SCHEMA_FILE = Path(__file__).with_name("records.schema.json")
LIVE, LATER = 0, 1  # lanes: as it happened, and from long ago
REGION = ("x", "y", "w", "h", "score", "label")

Row = Mapping[str, Any]


class Kind(StrEnum):
    EPOCH = "epoch"  # the first record of an outbox: what came before it
    RUN = "run"
    DECISION = "decision"
    OUTCOME = "outcome"
    LABEL = "label"  # what a person said about a part, or took back
    REQUEST = "request"  # what an operator asked of the box
    EVENT = "event"
    LOSS = "loss"  # what the journal itself could not keep
    METRICS = "metrics"
    DROP = "drop"  # what the uplink gave up, under quota
    EVIDENCE = "evidence"  # a picture arrived whole

    @property
    def table(self) -> str:
        """The journal's table that rows of this kind come from."""
        return "part" if self in (Kind.DECISION, Kind.OUTCOME) else self.value


@dataclass(frozen=True, slots=True)
class Draft:
    """A record without its number. `source` is the row of the journal that it came from."""

    kind: Kind
    monotonic_ns: int
    utc_ns: int
    time_quality: str
    data: Row
    source: int | None = None
    lane: int = LIVE
    run: int | None = None
    model: str | None = None
    model_digest: str | None = None
    config_digest: str | None = None


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """What is the same in all records of a box."""

    box: str
    journal: str = ""  # short name of the journal's file: run numbers count within it

    def encode(self, draft: Draft, epoch: str, seq: int) -> bytes:
        """UTF-8 JSON without spaces. Values that JSON does not know become null or text, never an error."""
        record = {
            "schema": SCHEMA,
            "box": self.box,
            "epoch": epoch,
            "seq": seq,
            "kind": draft.kind.value,
            "monotonic_ns": draft.monotonic_ns,
            "time": _iso(draft.utc_ns),
            "time_quality": draft.time_quality,
            "journal": self.journal,
            "run": draft.run,
            "model": draft.model,
            "model_digest": draft.model_digest,
            "config_digest": draft.config_digest,
            "data": draft.data,
        }
        try:
            text = _dumps(record)
        except (TypeError, ValueError):
            text = _dumps(_plain(record))
        return text.encode("utf-8", "replace")


def _iso(utc_ns: int) -> str:
    """A wall clock that is wildly off still gives a valid time."""
    try:
        return iso_utc(utc_ns)
    except (ValueError, OverflowError, OSError):
        return iso_utc(0)


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """The same in JSON's own types; what is not a number is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


# -- from rows of the journal ------------------------------------------------------------------------------------------


def decision_record(row: Row, revision: int, lane: int) -> Draft:
    """row: of the view `ledger`, decided. revision: 0 for the first decision; a later one replaces it."""
    at_ns = row["decided_ns"] if row["decided_ns"] is not None else row["trigger_ns"]
    data = {
        **_part(row),
        "verdict": row["verdict"],
        "cause": row["cause"],
        "reason": row["reason"],
        "score": row["score"],
        "origin": row.get("origin"),
        "file": row.get("file"),
        "encoder": row["encoder"],
        "trigger_ns": row["trigger_ns"],
        "captured_ns": row["captured_ns"],
        "decided_ns": row["decided_ns"],
        "timings_ms": _json(row["timings_ms"], {}),
        "regions": [dict(zip(REGION, region, strict=False)) for region in _json(row["regions"], [])],
        "recovered": bool(row["recovered"]),
        "revision": revision,
    }
    return _of_part(Kind.DECISION, row, at_ns, data, lane)


def outcome_record(row: Row, lane: int) -> Draft:
    """row: of the view `ledger`; its outcome is known, or nobody will ever know it."""
    at_ns = row["outcome_ns"] if row["outcome_ns"] is not None else row["trigger_ns"]
    data = {
        **_part(row),
        "outcome": row["outcome"],
        "verdict": row["verdict"],
        "encoder": row["outcome_encoder"],
        "outcome_ns": row["outcome_ns"],
    }
    return _of_part(Kind.OUTCOME, row, at_ns, data, lane)


def _part(row: Row) -> dict[str, Any]:
    return {
        "part": part_name(row["boot_id"], row["part_id"]),
        "boot_id": row["boot_id"],
        "part_id": row["part_id"],
        "row": row["id"],
    }


def part_name(boot_id: int, part_id: int) -> str:
    """The controller's name for a part, as the ledger prints it."""
    return f"{boot_id:04x}-{part_id}"


def _of_part(kind: Kind, row: Row, at_ns: int, data: Row, lane: int) -> Draft:
    elapsed_ns = at_ns - row["trigger_ns"]
    has_rebooted = elapsed_ns < 0  # monotonic time began anew between photo-eye and report
    return Draft(
        kind,
        at_ns,
        row["trigger_utc_ns"] + (0 if has_rebooted else elapsed_ns),
        row["time_quality"],
        data,
        row["id"],
        lane,
        row["run"],
        row["model"],
        row["model_digest"],
        row["config_digest"],
    )


def run_record(row: Row, wall: WallClock, lane: int) -> Draft:
    """row: of the table `run`, when it started and again when its end is known."""
    has_ended = row["ended"] != "open"
    data = {
        "phase": row["ended"] if has_ended else "started",
        "machine_boot": row["machine_boot"],
        "started_ns": row["started_ns"],
        "started": _iso(row["started_utc_ns"]),
        "stopped": _iso(row["stopped_utc_ns"]) if row["stopped_utc_ns"] else None,
        "versions": _json(row["versions"], {}),
    }
    if not has_ended:
        data["config"] = _json(row["config"], {})
    at_ns, utc_ns, quality = row["started_ns"], row["started_utc_ns"], row["time_quality"]
    if has_ended:
        at_ns, utc_ns, quality = wall.monotonic(), row["stopped_utc_ns"] or wall.now(), wall.quality.value
    digests = row["model"], row["model_digest"], row["config_digest"]
    return Draft(Kind.RUN, at_ns, utc_ns, quality, data, row["id"], lane, row["id"], *digests)


def row_record(table: str, row: Row, wall: WallClock, lane: int, *, with_words: bool) -> Draft:
    """row: of `event`, `loss`, `label` or `request`, whose rows never change."""
    match table:
        case "event":
            return event_record(row, lane)
        case "label":
            return label_record(row, wall, lane)
        case "request":
            return request_record(row, lane, with_words=with_words)
    return loss_record(row, wall, lane)


def event_record(row: Row, lane: int) -> Draft:
    """row: of the table `event`."""
    kind = str(row["kind"])
    data = {"event": kind, "severity": severity_of(kind), "detail": _json(row["detail"], {}), "by": "run"}
    at = row["at_ns"], row["at_utc_ns"], row["time_quality"]
    return Draft(Kind.EVENT, *at, data, row["id"], lane, row["run"])


def label_record(row: Row, wall: WallClock, lane: int) -> Draft:
    """row: of the view `saying`. Several may be about one part, and none replaces another."""
    data = {
        **_part({**row, "id": row["part"]}),
        "number": row["id"],
        "label": row["label"],
        "undoes": row["undoes"],
        "defect": row["defect"],
        "comment": row["comment"],
        "by": row["by"],
        "where": row["where"],
        "saw_verdict": row["saw_verdict"],
        "box": dict(zip("xywh", _json(row["box"], []), strict=True)) if row["box"] else None,
    }
    at_ns = wall.monotonic() if row["at_ns"] is None else row["at_ns"]
    saw = row["saw_model"], row["saw_digest"]
    return Draft(Kind.LABEL, at_ns, row["at_utc_ns"], row["time_quality"], data, row["id"], lane, row["run"], *saw)


def request_record(row: Row, lane: int, *, with_words: bool) -> Draft:
    """row: of the table `request`. with_words: what operators said or typed may leave the box."""
    data = {
        "source": row["source"],
        "opened_ns": row["opened_ns"],
        "start_ns": row["start_ns"],
        "end_ns": row["end_ns"],
        "transcript": row["transcript"] if with_words else None,
        "confidence": row["confidence"],
        "command": row["command"],
        "results": _json(row["results"], []),
        "redo": row["redo"],
        "choice": row["choice"],
        "outcome": row["outcome"],
        "reason": row["reason"],
        "origin": row["origin"],
    }
    at = row["opened_ns"], row["opened_utc_ns"], row["time_quality"]
    return Draft(Kind.REQUEST, *at, data, row["id"], lane, row["run"])


def loss_record(row: Row, wall: WallClock, lane: int) -> Draft:
    """row: of the table `loss`: records that the journal had no room for."""
    data = {
        "what": row["what"],
        "why": row["why"],
        "count": row["count"],
        "first": _iso(row["first_utc_ns"]),
        "last": _iso(row["last_utc_ns"]),
    }
    return Draft(Kind.LOSS, wall.monotonic(), row["last_utc_ns"], wall.quality.value, data, row["id"], lane, row["run"])


def _json(text: str | None, empty: Any) -> Any:
    """A column of JSON text; a damaged one is no reason to withhold the verdict beside it."""
    try:
        return json.loads(text) if text else empty
    except ValueError:
        return empty


# -- made here ---------------------------------------------------------------------------------------------------------


def own_record(kind: Kind, data: Row, wall: WallClock) -> Draft:
    """A record that no row of the journal stands for."""
    return Draft(kind, wall.monotonic(), wall.now(), wall.quality.value, data)


def own_event(event: EventKind, detail: Row, wall: WallClock) -> Draft:
    return own_record(
        Kind.EVENT, {"event": event, "severity": severity_of(event), "detail": dict(detail), "by": "sync"}, wall
    )


def epoch_record(wall: WallClock, previous: str | None, why: str, aside: Sequence[str], carried: int = 0) -> Draft:
    """why: first | lost | damaged | newer | unsealed | copied | machine | went_back | removed.

    aside: the name under which the old file lies. carried: records that waited in it and come again under the new
    numbers that follow.
    """
    data = {"previous": previous, "why": why, "aside": aside[0] if aside else None, "carried": carried}
    return own_record(Kind.EPOCH, data, wall)


def drop_record(
    wall: WallClock,
    what: str,
    why: str,
    count: int,
    seqs: Sequence[tuple[int, int]] = (),
    names: Sequence[str] = (),
) -> Draft:
    """So many records are given up: what they were, their numbers as first-last ranges, or what they were about."""
    data = {"what": what, "why": why, "count": count, "seqs": [list(pair) for pair in seqs], "names": list(names)}
    return own_record(Kind.DROP, data, wall)
