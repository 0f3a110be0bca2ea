"""`parts list | show | replay`: the ledger. What passed, what was decided and why, and whether it would be again."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import ComputesBesideLine, LooksAtLine
from edge_runtime.cli.columns import GAP, Column, hanging, room, table
from edge_runtime.cli.progress import progress
from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import LOCAL, Cause, Outcome, PartKey, Verdict
from edge_runtime.core.wording import counted
from edge_runtime.recording.labels import Saying, is_disputed
from edge_runtime.recording.part_times import boot_since, clock_notes
from edge_runtime.recording.reader import JournalReader, PartFilter, PartRow, iso_utc

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.dataset.replay import Judged, Replay

COLOURS = {"accept": "green", "reject": "red", "unsure": "yellow"}
COLUMNS = (
    Column("ID", is_number=True),
    Column("TIME"),
    Column("PART", rank=4),
    Column("VERDICT"),
    Column("CAUSE", rank=3),
    Column("SCORE", rank=2, is_number=True),
    Column("OUTCOME", rank=1),
    Column("MS", rank=5, is_number=True),
    Column("PICTURE", rank=7),
    Column("LABEL", rank=6),
    Column("FILE"),
    Column("REASON"),
)
SHOWN_DIFFERENCES = 20
ON_BELT_NS = 60_000_000_000  # a run that was killed is open until the next start: nothing is on the belt so long
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART_NAME = re.compile(r"([0-9a-fA-F]{1,4})-(\d+)")


@click.group()
def parts() -> None:
    """The ledger: what passed, what was decided, why."""


# -- list --------------------------------------------------------------------------------------------------------------


@parts.command("list", cls=LooksAtLine)
@click.option("--last", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Parts at most.")
@click.option(
    "--verdict",
    "verdicts",
    multiple=True,
    type=click.Choice([v.value for v in Verdict]),
    help="Only parts with this verdict.",
)
@click.option(
    "--cause",
    "causes",
    multiple=True,
    type=click.Choice([c.value for c in Cause]),
    help="Only parts decided for this cause.",
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice([o.value for o in Outcome]),
    help="Only parts that ended like this.",
)
@click.option("--since", metavar="WHEN", help="30m, 2h, 1d, today, or local 2026-03-01T08:00.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def list_parts(
    session: Session,
    last: int,
    verdicts: Sequence[str],
    causes: Sequence[str],
    outcomes: Sequence[str],
    since: str | None,
    as_json: bool,
) -> None:
    """The newest parts, one a line, the newest last. An option given twice means either; --since goes by true age, also
    where the clock was wrong. Times are local, MS is from the photo-eye to the verdict."""
    since_utc_ns = parse_since(since) if since else None
    boot = boot_since(since_utc_ns) if since_utc_ns is not None else None
    which = PartFilter(verdicts, causes, outcomes, since_utc_ns, boot)
    with _journal(session) as reader:
        rows = reader.newest(last, which)
        notes = list(clock_notes(reader, rows, since_utc_ns))
        counts = {} if as_json else reader.counts(which)
        losses = [] if as_json else reader.losses()
        run = reader.run() or {}
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=2))
    else:
        _print_table(rows, counts, losses, run)
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _print_table(
    rows: Sequence[PartRow],
    counts: Mapping[str, Any],
    losses: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
) -> None:
    click.echo("\n".join(_table(rows, run, room())))
    match = "matches" if counts["parts"] == 1 else "match"
    words = [f"{counted(counts['parts'], 'part')} {match}"] + [
        f"{name} {count}" for name, count in counts["verdicts"].items()
    ]
    click.echo(", ".join(words), err=True)
    for loss in losses:
        click.echo(f"note: missing: {counted(loss['count'], 'record')} ({loss['what']}): {loss['why']}", err=True)


def how_it_ended(row: PartRow, run: Mapping[str, Any], now_ns: int | None = None) -> str:
    """The outcome, or `on belt` for a part of the run that goes on which the gate has not reported yet. run: the newest
    one, or that of the part."""
    age_ns = (time.time_ns() if now_ns is None else now_ns) - row.trigger_utc_ns
    is_under_way = row.outcome == Outcome.UNKNOWN and row.outcome_ns is None and abs(age_ns) < ON_BELT_NS
    return "on belt" if is_under_way and run.get("id") == row.run and run.get("ended") == "open" else row.outcome


def _table(rows: Sequence[PartRow], run: Mapping[str, Any], width: int | None = None) -> list[str]:
    """width: of the terminal; the columns that do not fit are left out, and named below."""
    has_files = any(row.file for row in rows)
    columns = [column for column in COLUMNS if has_files or column.name != "FILE"]
    cells = [[_cells(row, run)[column.name] for column in columns] for row in rows]
    laid_out, left_out = table(columns, cells, width)
    at = [column.name for column in columns if column.name not in left_out].index("VERDICT")
    lines = [click.style(GAP.join(laid_out[0]).rstrip(), bold=True)]
    for fields in laid_out[1:]:
        fields[at] = click.style(fields[at], fg=COLOURS.get(fields[at].strip()))
        lines.append(GAP.join(fields).rstrip())
    if left_out:
        lines += hanging("note: ", f"no room for {', '.join(left_out)}: `parts show ID` has them", width)
    return lines


def _cells(row: PartRow, run: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        "ID": str(row.id),
        "TIME": _local(row.trigger_utc_ns).strftime("%m-%d %H:%M:%S.%f")[:-3],
        "PART": row.part,
        "VERDICT": row.verdict or "...",
        "CAUSE": row.cause or "...",
        "SCORE": "-" if row.score is None else f"{row.score:.3f}",
        "OUTCOME": how_it_ended(row, run),
        "MS": "-" if row.trigger_to_verdict_ms is None else f"{row.trigger_to_verdict_ms:.1f}",
        "PICTURE": "yes" if row.evidence else "-",
        "LABEL": row.label or "-",
        "FILE": row.file or "-",
        "REASON": row.reason or "",
    }


def parse_since(text: str, now_s: float | None = None) -> int:
    """A moment in UTC nanoseconds, from a span before now or a local date and time. Raises UsageError."""
    now = time.time() if now_s is None else now_s
    span = _SPAN.fullmatch(text.strip())
    if span:
        return round((now - float(span[1]) * _SECONDS[span[2]]) * 1e9)
    if text == "today":
        moment = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        return round(moment.timestamp() * 1e9)
    try:
        return round(datetime.fromisoformat(text).astimezone().timestamp() * 1e9)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"--since '{text}': write a span (30m, 2h, 1d), today, or a time (2026-03-01T08:00)") from None


# -- show --------------------------------------------------------------------------------------------------------------


@parts.command(cls=LooksAtLine)
@click.argument("part", metavar="ID")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw the part into a .png or .jpg.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def show(session: Session, part: str, picture: Path | None, as_json: bool) -> None:
    """One part, joined, with all that people said about it. ID is a number of `parts list`, a part's name such as
    7f3a-128, or `last`."""
    with _journal(session) as reader:
        row = _find(reader, part)
        run = reader.run(row.run) or {}
        history = reader.history(row.id)
        state = reader.path.parent
    has_picture = row.evidence is not None and (state / row.evidence).is_file()
    if picture:
        _draw(state, row, picture, has_picture)
    labels = [{**saying.as_dict(), "time": iso_utc(saying.at_utc_ns)} for saying in history]
    document = {**row.as_dict(), "has_picture": has_picture, "run_started": run.get("started"), "labels": labels}
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    click.echo("\n".join([*_card(row, run, has_picture), *_said_by_people(history)]))


def _find(reader: JournalReader, text: str) -> PartRow:
    named = _PART_NAME.fullmatch(text)
    if text == "last":
        row = next(iter(reader.newest(1)), None)
    elif named:
        row = reader.part_by_key(PartKey(int(named[1], 16), min(int(named[2]), 2**32)))
    elif text.isdecimal():
        row = reader.part(min(int(text), 2**62))
    else:
        raise UsageError(f"'{text}' is no part", "give a number of `parts list`, a name such as 7f3a-128, or last")
    if row is None:
        newest = next(iter(reader.newest(1)), None)
        raise StorageError(
            f"no part {text} in {reader.path}" + (f"; the newest is {newest.id}" if newest else ": it holds none yet")
        )
    return row


def _card(row: PartRow, run: dict[str, Any], has_picture: bool) -> list[str]:
    word = click.style((row.verdict or "on its way").upper(), fg=COLOURS.get(row.verdict or ""), bold=True)
    picture = row.evidence or "none kept"
    at_gate = "" if row.outcome_encoder is None else f" at encoder {row.outcome_encoder}"
    facts = {
        "reason": f"{row.reason} ({row.cause})" if row.reason else "not decided yet",
        "score": "-" if row.score is None else f"{row.score:.4f}",
        "outcome": how_it_ended(row, run) + at_gate,
        "photo-eye": f"{_local(row.trigger_utc_ns).isoformat(' ', 'milliseconds')}, encoder {row.encoder}"
        + ("" if row.time_quality == "synced" else ", clock free running"),
        "frame": _after(row, row.captured_ns),
        "verdict": _after(row, row.decided_ns),
        "gate": _after(row, row.outcome_ns),
        "stages": "  ".join(f"{stage} {ms:.2f} ms" for stage, ms in row.timings_ms.items()) or "-",
        "model": f"{row.model or '-'}  {(row.model_digest or '')[:12]}",
        "answered": _who(row.origin),
        "settings": row.config_digest[:12],
        **({"file": row.file} if row.file else {}),
        "run": f"{row.run}, started {run.get('started', '-')}",
        "picture": picture if has_picture or not row.evidence else f"{picture} (no longer there)",
        "label": row.label or "nobody said anything",
    }
    lines = [f"part {row.id}  {row.part}  {word}"]
    lines += [f"  {name:<10} {value}".rstrip() for name, value in facts.items()]
    for region in row.regions:
        lines.append(f"  place      {region.label} {region.score:.2f} at {region.x:.3f}, {region.y:.3f}")
    if row.recovered:
        lines.append("  note       closed when the box started again: it had stopped before it noted a decision")
    return lines


def _who(origin: str | None) -> str:
    return "by the box's own model" if origin == LOCAL else f"by {origin}" if origin else "-"


def _said_by_people(history: Sequence[Saying]) -> Iterator[str]:
    """The whole history, the oldest first: what was taken back stands there, and says so."""
    for saying in history:
        what = saying.label or f"takes {saying.undoes} back"
        about = [saying.defect, f"after {saying.saw_model} had said {saying.saw_verdict}" if saying.saw_model else ""]
        comment = " ".join(saying.comment.split())
        about += ["taken back" if saying.is_undone else "", f'"{comment}"' if comment else ""]
        yield ", ".join(
            [
                f"  said {saying.id:<5} {_local(saying.at_utc_ns).isoformat(' ', 'seconds')} {saying.by}"
                f" ({saying.where}): {what}",
                *filter(None, about),
            ]
        )
    if is_disputed(history):
        yield "  note       people disagree about this part"


def _after(row: PartRow, at_ns: int | None) -> str:
    return "-" if at_ns is None else f"{(at_ns - row.trigger_ns) / 1e6:+.2f} ms"


def _draw(state: Path, row: PartRow, file: Path, has_picture: bool) -> None:
    from edge_runtime.recording.evidence import load_heat, load_picture
    from edge_runtime.recording.picture import draw_part, save_picture
    from edge_runtime.recording.shelf import heat_file

    image = heat = None
    if has_picture and row.evidence:
        try:
            image, heat = load_picture(state / row.evidence), load_heat(heat_file(state / row.evidence))
        except OSError as err:
            raise StorageError(f"cannot read the picture of part {row.id}: {err}") from err
    else:
        click.echo(f"note: no picture of part {row.id} was kept: {file} shows its times only", err=True)
    save_picture(file, draw_part(image, heat, row.regions, row))


# -- replay ------------------------------------------------------------------------------------------------------------


@parts.command(cls=ComputesBesideLine)
@click.option("--run", "run", default="latest", show_default=True, metavar="latest|N", help="Number of the run.")
@click.option("--model", metavar="NAME[@VERSION]", help="Judge by this model; else by the run's own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def replay(session: Session, run: str, model: str | None, as_json: bool) -> None:
    """Judge the kept pictures of a run again. Names the parts that would be decided otherwise now: what was said then
    and what is said now. Exit code 1 if a decision differs, or none could be compared.

    A picture kept as PNG must give the very same decision. One kept as JPEG is not quite what the model saw, so only
    its verdict is compared; recording.format = "png" makes replays exact, recording.good_share = 1.0 keeps all. Each
    part is judged by the model that judged it then, found by its digest, unless --model names one for all; parts whose
    model is gone from the store are counted as not compared.
    """
    from edge_runtime.config.paths import state_dir
    from edge_runtime.dataset.replay import replay as replay_recorded

    if run != "latest" and not run.isdecimal():
        raise UsageError(f"--run '{run}': give a number, or latest")
    number = None if run == "latest" else int(run)
    with progress(is_quiet=as_json) as told:
        found = replay_recorded(session.config, state_dir(session.config), number, model, partial(told, "judging"))
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(_comparison(found)))
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    raise SystemExit(0 if found.is_identical else 1)


def _comparison(found: Replay) -> list[str]:
    models = [f"{label} ({counted(parts, 'part')})" for label, parts in found.judged_by.items()]
    by = ", ".join(models) if len(models) > 1 else found.model or "no model"
    lines = [
        f"run {found.run}, {by}: {found.identical} of {found.compared} decisions identical"
        f" ({counted(found.parts, 'part')} in the run)"
        if found.compared or not found.lossy_compared
        else f"run {found.run}, {by}: {counted(found.parts, 'part')}"
    ]
    if found.lossy_compared:
        lines.append(
            f"  pictures kept as JPEG: {found.lossy_same_verdict} of {found.lossy_compared} the same verdict, largest "
            f"change of a score {found.lossy_score_change:.3f}"
        )
    lines += [f"  not compared: {count} ({why})" for why, count in sorted(found.not_compared.items())]
    for difference in found.differences[:SHOWN_DIFFERENCES]:
        was, now = _said(difference.recorded), _said(difference.replayed)
        kept = "" if difference.is_lossless else ", JPEG"
        lines.append(f"  part {difference.id} ({difference.part}{kept}): was {was}; now {now}")
    if len(found.differences) > SHOWN_DIFFERENCES:
        lines.append(f"  and {len(found.differences) - SHOWN_DIFFERENCES} more (--json lists all)")
    return lines


def _said(judged: Judged) -> str:
    score = "-" if judged.score is None else f"{judged.score:.6f}"
    return f"{judged.verdict} {score} ({judged.reason})"


# -- where the journal is ----------------------------------------------------------------------------------------------


def _journal(session: Session) -> JournalReader:
    reader = JournalReader(_state_folder(session) / "journal.db")
    if short := reader.shortfall():
        click.echo(f"warning: {short}", err=True)
    return reader


def _state_folder(session: Session) -> Path:
    """The station's state folder, without the cost of checking the whole file (no pydantic on this way)."""
    from edge_runtime.config.paths import locate_state, state_dir, with_service_folders

    if session.settings:
        return state_dir(session.config)
    configured = ""
    if session.config_path is not None:
        try:
            tree = with_service_folders(session.config_path, tomllib.loads(session.config_path.read_text()))
            configured = str(tree.get("recording", {}).get("state_dir", ""))
        except (OSError, ValueError, AttributeError):
            return state_dir(session.config)  # says in a sentence what is wrong with the file
    return locate_state(configured)


def _local(utc_ns: int) -> datetime:
    return datetime.fromtimestamp(utc_ns / 1e9).astimezone()
