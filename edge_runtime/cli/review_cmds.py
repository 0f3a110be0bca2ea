"""`review list | next | label`: what waits for a person's eye, the same queue as on the page. Works offline."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import LooksAtLine
from edge_runtime.cli.control_path import control_path
from edge_runtime.config.paths import JOURNAL, state_dir
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import OPERATOR, Box, HumanLabel, Label, PartKey, Where
from edge_runtime.core.wording import counted
from edge_runtime.dataset.review import KINDS, Waiting, review_queue
from edge_runtime.recording.reader import JournalReader, PartRow
from edge_runtime.recording.say_label import say, take_back

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.cli.main import Session

_BY = click.option("--by", metavar="NAME", help="Who reviews; else who is logged in.")
_DAY = click.option("--day", default="", metavar="DATE", help="Only what passed on this local day: 2026-03-01.")
_KIND = click.option("--kind", type=click.Choice(list(KINDS)), help="Only what waits for this reason.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def review() -> None:
    """What waits for a person's eye: unsure parts, overrides, and accepted ones drawn for audit."""


@review.command("list", cls=LooksAtLine)
@_BY
@_DAY
@_KIND
@_JSON
@click.pass_obj
def list_waiting(session: Session, by: str | None, day: str, kind: str | None, as_json: bool) -> None:
    """What this person has not answered yet, and how much of it is of which day. The model's verdict is not told."""
    found = review_queue(_journal(session), by or _login(), day)
    waiting = [one for one in found.waiting if kind in (None, one.kind)]
    if as_json:
        click.echo(json.dumps({"waiting": [asdict(one) for one in waiting], "days": dict(found.days)}, indent=2))
        return
    for one in waiting:
        click.echo(f"{one.row:>7}  {_local(one.at_ms)}  {one.part:<14} {one.kind}")
    days = ", ".join(f"{day} {count}" for day, count in found.days.items())
    click.echo(f"{counted(len(waiting), 'part')} to review" + (f" ({days})" if days else ""), err=True)


@review.command("next", cls=LooksAtLine)
@_BY
@_DAY
@_KIND
@_JSON
@click.pass_obj
def next_waiting(session: Session, by: str | None, day: str, kind: str | None, as_json: bool) -> None:
    """The part to look at now, and the file of its picture. Exit code 1 when nothing waits."""
    journal = _journal(session)
    found = review_queue(journal, by or _login(), day)
    waiting = [one for one in found.waiting if kind in (None, one.kind)]
    if not waiting:
        click.echo("null" if as_json else "nothing waits for review")
        raise SystemExit(1)
    picture = journal.parent / str(_part(journal, str(waiting[0].row)).evidence)
    if as_json:
        click.echo(json.dumps({**asdict(waiting[0]), "picture": str(picture), "to_go": len(waiting)}, indent=2))
    else:
        click.echo("\n".join(_shown(waiting[0], picture, found.defects)))
        click.echo(f"{len(waiting) - 1} more after it", err=True)


@review.command("label")
@click.argument("part", metavar="ID")
@click.argument("label", metavar="LABEL", type=click.Choice([*(one.value for one in Label), "undo"]))
@_BY
@click.option("--defect", default="", metavar="CLASS", help="Class of the defect.")
@click.option("--comment", default="", help="A remark.")
@click.option("--box", nargs=4, type=float, metavar="X Y W H", help="Where it is, in fractions of the picture.")
@_JSON
@click.pass_obj
def label_part(
    session: Session, part: str, label: str, by: str | None, defect: str, comment: str,
    box: tuple[float, float, float, float] | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what a part is: accept, reject, cannot_tell; or undo one's last word. ID is its number or name."""
    journal, socket, who = _journal(session), control_path(session), by or _login()
    row = _part(journal, part)
    if label == "undo":
        number = _last_word(journal, row, who)
        take_back(journal, socket, number, who, Where.CLI, comment)
        told: dict[str, Any] = {"part": row.part, "undone": number}
    else:
        key, place = PartKey(row.boot_id, row.part_id), Box(*box) if box else None
        said = HumanLabel(
            key, Label(label), monotonic_ns(), who, Where.CLI, defect, comment, row=row.id, box=place
        )  # fmt: skip
        told = {"part": row.part, "label": label, "number": say(journal, socket, said).id}
    click.echo(json.dumps(told) if as_json else " ".join(str(value) for value in told.values()))


def _last_word(journal: Path, row: PartRow, who: str) -> int:
    with JournalReader(journal) as reader:
        mine = [one for one in reader.history(row.id) if one.by == who and one.is_in_force]
    if not mine:
        raise UsageError(f"nothing that {who} said about part {row.part} stands", "look at `edge-runtime parts show`")
    return mine[-1].id


def _part(journal: Path, text: str) -> PartRow:
    boot, dash, number = text.partition("-")
    with JournalReader(journal) as reader:
        try:
            row = reader.part_by_key(PartKey(int(boot, 16), int(number))) if dash else reader.part(int(text))
        except ValueError:
            raise UsageError(f"'{text}' is no part", "give a number of `review list`, or a name: 7f3a-128") from None
        except OverflowError:
            row = None
    if row is None:
        raise StorageError(f"no part {text} in {journal}")
    return row


def _shown(one: Waiting, picture: Path, defects: tuple[str, ...]) -> list[str]:
    return [
        f"part {one.row}  {one.part}  {one.kind}  {_local(one.at_ms)}",
        f"  picture    {picture}",
        f"  classes    {', '.join(defects) or '-'}",
        f"  answer     edge-runtime review label {one.row} accept|reject|cannot_tell",
    ]


def _journal(session: Session) -> Path:
    return state_dir(session.config) / JOURNAL


def _local(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1e3).astimezone().isoformat(" ", "seconds")


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return OPERATOR
