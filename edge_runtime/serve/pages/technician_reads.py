"""What a technician reads of a box: parts by what they were, one part's whole story, events, models and their slots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import EdgeError, StorageError, UsageError
from edge_runtime.core.events import EventKind, severity_of
from edge_runtime.core.messages import Cause, Outcome, Verdict
from edge_runtime.core.typed_json import to_json
from edge_runtime.decision.policy import station_policy
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.model_reports import list_models
from edge_runtime.recording.labels import is_disputed
from edge_runtime.recording.reader import JournalReader, PartFilter, PartRow
from edge_runtime.serve.pages.acts import MOST_PART_NAME, key_of, text
from edge_runtime.serve.pages.shift import kept

SHOWN = 50  # parts at once
MOST_EVENTS = 300
SAYS = {str(kind): kind.says for kind in EventKind}
_KINDS: Mapping[str, Any] = {"verdict": Verdict, "cause": Cause, "outcome": Outcome}


def find_parts(journal: Path, words: Mapping[str, str]) -> Mapping[str, Any]:
    """The newest parts that match, the newest first, and the row to go on before (None: there are no more).

    words: `verdict`, `cause`, `outcome`, `since_ms`, `until_ms`, `part` (name or row), `before` (a row). Raises
    UsageError, StorageError.
    """
    with JournalReader(journal) as reader:
        if name := text(words, "part", MOST_PART_NAME).strip():
            row = reader.part(_number(name)) if name.isdecimal() else reader.part_by_key(key_of(name))
            rows = [row] if row else []
            return {"parts": [to_json(kept(one)) for one in rows], "before": None}
        rows = reader.newest(SHOWN + 1, _filter(reader, words))[::-1]
    shown = rows[:SHOWN]
    return {"parts": [to_json(kept(one)) for one in shown], "before": shown[-1].id if len(rows) > SHOWN else None}


def _filter(reader: JournalReader, words: Mapping[str, str]) -> PartFilter:
    chosen = {kind: _choice(words, kind) for kind in _KINDS}
    since, until = text(words, "since_ms", 16), text(words, "until_ms", 16)
    ends = [_number(words["before"])] if words.get("before") else []
    if until:
        ends.append(reader.row_before(_number(until) * 10**6) + 1)
    above = reader.row_before(_number(since) * 10**6) if since else None
    below = min(ends) if ends else None
    return PartFilter(chosen["verdict"], chosen["cause"], chosen["outcome"], above=above, below=below)


def _choice(words: Mapping[str, str], kind: str) -> list[str]:
    said = words.get(kind, "")
    if said and said not in list(_KINDS[kind]):
        raise UsageError(f"{kind} {said!r} is none of {', '.join(_KINDS[kind])}")
    return [said] if said else []


def _number(said: str) -> int:
    if not said.isdecimal() or len(said) > 16:
        raise UsageError(f"{said!r} is no whole number")
    return int(said)


def story(cfg: EdgeConfig, journal: Path, number: int) -> Mapping[str, Any]:
    """All that is known of the part in this row. Raises StorageError where there is none."""
    with JournalReader(journal) as reader:
        row = reader.part(number)
        if row is None:
            raise StorageError(f"there is no part {number} in the journal")
        run, history = reader.run(row.run) or {}, reader.history(number)
    return {
        **row.as_dict(),
        "at_ms": row.trigger_utc_ns // 10**6,
        "moments_ms": {
            name: None if at_ns is None else round((at_ns - row.trigger_ns) / 1e6, 3)
            for name, at_ns in (("frame", row.captured_ns), ("verdict", row.decided_ns), ("gate", row.outcome_ns))
        },
        "has_picture": row.evidence is not None and (journal.parent / row.evidence).is_file(),
        "run_started_ms": run["started_utc_ns"] // 10**6 if run else None,
        "limits": _limits(cfg, row, run),
        "labels": [{**one.as_dict(), "at_ms": one.at_utc_ns // 10**6} for one in history],
        "is_disputed": is_disputed(history),
    }


def _limits(cfg: EdgeConfig, row: PartRow, run: Mapping[str, Any]) -> Mapping[str, float] | None:
    """Of the model that judged it, with the settings of that run; None where the bundle is gone."""
    name, _, version = (row.model or "").partition("@")
    try:
        bundle = open_store(cfg).open_exactly(name, version, row.model_digest or "")
        decision = EdgeConfig.model_validate(run["config"]).decision
    except (EdgeError, ValueError, KeyError):
        return None
    limits = station_policy(decision, bundle.manifest)
    return {"accept_below": limits.accept_below, "reject_at": limits.reject_at}


def events(journal: Path, severity: str) -> Mapping[str, Any]:
    """The newest events, the newest first. severity: only such; empty: all."""
    with JournalReader(journal) as reader:
        found, losses = reader.events(MOST_EVENTS), reader.losses()
    told = [
        {
            "number": one["id"], "at_ms": one["at_utc_ns"] // 10**6, "kind": one["kind"], "detail": one["detail"],
            "severity": str(severity_of(one["kind"])), "says": SAYS.get(one["kind"], ""),
        }
        for one in reversed(found)
    ]  # fmt: skip
    return {"events": [one for one in told if severity in ("", one["severity"])], "losses": losses}


def models(cfg: EdgeConfig, running: str) -> Mapping[str, Any]:
    """Every bundle, and what stands in the slots of the model at work. running: NAME@VERSION; empty: no box runs."""
    store = open_store(cfg)
    rows = list_models(cfg, store)
    name = (running or cfg.model.name).partition("@")[0]
    slot = Slots(store).of(name)
    by_label = {row["model"]: row for row in rows}
    station = next((row["model"] for row in rows if row["station"]), "")
    labels = {
        "active": running or station,
        **{
            place: f"{name}@{held.version}" if held else ""
            for place, held in (("candidate", slot.candidate), ("previous", slot.previous))
        },
    }
    held = {"candidate": slot.candidate, "previous": slot.previous, "active": slot.active}
    cards = [
        {"place": place, "model": label, "digest": digest.digest if (digest := held[place]) else "",
         "about": by_label.get(label)}
        for place, label in labels.items()
    ]  # fmt: skip
    return {"name": name, "is_running": bool(running), "cards": cards, "models": rows}
