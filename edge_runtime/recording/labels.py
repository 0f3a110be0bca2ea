"""What people said about parts: a history. Nothing is overwritten, and taking something back is a row as well.

In force for one person is the newest thing they said about the part that was not taken back; over all, the newest
that anybody said. Newest is by row, which is the order in which the journal heard it: clocks jump. An undo names the
row that it takes back. It is not taken back itself: who changes their mind again says so again.

Whoever says something may give it a name of its own (`ref`). What is said again under it, after a lost connection, is
the same row.

SQL and rules alone; `say_label` brings a label into the journal, `reader` out of it.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import Box, HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.recording.wall_clock import WallClock

MOST_NAME, MOST_COMMENT = 64, 500  # characters: of a person, a class of defect or a label, and of a remark

_COLUMNS = (
    'id, run, part, boot_id, part_id, label, undoes, defect, comment, "by", "where", at_utc_ns, time_quality,'
    " saw_model, saw_digest, saw_verdict, is_undone, ref, box"
)
_PART = "SELECT id FROM part WHERE boot_id = ? AND part_id = ? AND id = coalesce(?, id) ORDER BY run DESC LIMIT 1"
_MODEL = (
    "SELECT id FROM model WHERE label = ? ORDER BY id = (SELECT model FROM part WHERE id = ?) DESC, id DESC LIMIT 1"
)
_IN_FORCE = (
    "SELECT label FROM saying WHERE boot_id = ? AND part_id = ? AND label IS NOT NULL AND NOT is_undone"
    " ORDER BY id DESC LIMIT 1"
)
_INSERT = (
    'INSERT INTO label (run, part, boot_id, part_id, label, undoes, defect, comment, "by", "where", at_ns, at_utc_ns,'
    " time_quality, saw_model, saw_verdict, ref, box) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Saying:
    """One row of the history. part: row of the part; None where the journal did not know it."""

    id: int
    run: int
    part: int | None
    key: PartKey
    label: Label | None  # None: it takes `undoes` back
    undoes: int | None
    defect: str
    comment: str
    by: str
    where: Where
    at_utc_ns: int
    time_quality: str
    saw_model: str | None
    saw_digest: str | None
    saw_verdict: Verdict | None
    is_undone: bool
    ref: str
    box: Box | None

    @property
    def is_in_force(self) -> bool:
        """It says something about the part, and was not taken back; a newer one may say something else."""
        return self.label is not None and not self.is_undone

    def as_dict(self) -> dict[str, Any]:
        """JSON types, without the name of the part."""
        words = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "key"}
        return {**words, "box": asdict(self.box) if self.box else None}


# -- what is in force --------------------------------------------------------------------------------------------------


def by_person(history: Iterable[Saying]) -> dict[str, Saying]:
    """What each person's last word is, whoever has one. history: of one part, the oldest first."""
    return {saying.by: saying for saying in history if saying.is_in_force}


def over_all(history: Iterable[Saying]) -> Saying | None:
    """The last word of anybody. history: of one part, the oldest first."""
    return max((saying for saying in history if saying.is_in_force), key=lambda saying: saying.id, default=None)


def is_disputed(history: Iterable[Saying]) -> bool:
    """Whether the last words of two people differ."""
    return len({saying.label for saying in by_person(history).values()}) > 1


# -- what may be said --------------------------------------------------------------------------------------------------


def checked(label: HumanLabel) -> HumanLabel:
    """The label as it may be kept. Raises UsageError."""
    if (label.label is None) == (label.undoes is None):
        raise UsageError("a label says accept, reject or cannot_tell, or names the row that it takes back: one of both")
    if not label.by:
        raise UsageError("a label needs the name of who says it")
    names = (("by", label.by, MOST_NAME), ("defect", label.defect, MOST_NAME), ("ref", label.ref, MOST_NAME))
    for what, text, most in names:
        if len(text) > most or not text.isprintable():
            raise UsageError(f"{what} is longer than {most} characters or holds some that cannot be printed: {text!r}")
    if len(label.comment) > MOST_COMMENT or not label.comment.replace("\n", "").isprintable():
        raise UsageError(f"the comment is longer than {MOST_COMMENT} characters or holds some that cannot be printed")
    if label.box is not None:
        _check_box(label)
    return label


def _check_box(label: HumanLabel) -> None:
    box = label.box
    if label.label is not Label.REJECT:
        raise UsageError("a box marks a defect: only the label reject has one")
    sides = astuple(box) if box else ()
    is_within = all(math.isfinite(side) and 0 <= side <= 1 for side in sides)
    if not box or not is_within or box.w == 0 or box.h == 0 or box.x + box.w > 1.000001 or box.y + box.h > 1.000001:
        raise UsageError(f"box {list(sides)} is not x, y, w, h in fractions of the picture: within 0 and 1, not empty")


def undo_of(saying: Saying, at_ns: int, by: str, where: Where, comment: str = "", ref: str = "") -> HumanLabel:
    """What takes `saying` back. Raises UsageError where there is nothing to take back."""
    if saying.label is None:
        raise UsageError(f"label {saying.id} takes another back already; say again what is meant instead")
    if saying.is_undone:
        raise UsageError(f"label {saying.id} was taken back already")
    return HumanLabel(saying.key, None, at_ns, by, where, "", comment, undoes=saying.id, row=saying.part, ref=ref)


# -- in the journal ----------------------------------------------------------------------------------------------------


def append(db: sqlite3.Connection, run: int, label: HumanLabel, wall: WallClock, *, in_run: bool = True) -> int:
    """Write one row, inside the caller's transaction, where no row has its `ref` yet; the number of that row.

    in_run: `run` goes on, so that its boot of the machine says what `at_ns` means. Raises sqlite3.IntegrityError for
    what no row can hold.
    """
    known = saying_named(db, label.ref) if label.ref else None
    if known is not None:  # asked, not left to the index: a refused insert leaves a gap that looks like a lost row
        return known.id
    part = part_row(db, label.key, label.row)
    row = (
        run,
        part,
        *label.key,
        label.label,
        label.undoes,
        label.defect,
        label.comment,
        label.by,
        label.where,
        label.at_ns if in_run else None,
        wall.utc(label.at_ns),
        wall.quality,
        _model(db, label.saw_model, part),
        label.saw_verdict,
        label.ref or None,
        json.dumps([round(side, 5) for side in astuple(label.box)]) if label.box else None,
    )
    return int(db.execute(_INSERT, row).lastrowid or 0)


def part_row(db: sqlite3.Connection, key: PartKey, row: int | None = None) -> int | None:
    """The part of this name that lies in `row`; with None the newest. None where there is no such part."""
    found = db.execute(_PART, (*key, row)).fetchone()
    return int(found[0]) if found else None


def _model(db: sqlite3.Connection, label: str, part: int | None) -> int | None:
    """The model of this name that judged the part, else the newest of this name."""
    if not label:
        return None
    found = db.execute(_MODEL, (label, part)).fetchone()
    number = found[0] if found else db.execute("INSERT INTO model (label, digest) VALUES (?, '')", (label,)).lastrowid
    return int(number or 0)


def history_of(db: sqlite3.Connection, part: int) -> list[Saying]:
    """All that was said about the part in this row, the oldest first."""
    return _sayings(db, "WHERE part = ? ORDER BY id", (part,))


def saying(db: sqlite3.Connection, number: int) -> Saying:
    """One row of the history. Raises StorageError when there is none."""
    found = _sayings(db, "WHERE id = ?", (number,))
    if not found:
        raise StorageError(f"no label {number} in the journal; `edge-runtime parts show` lists those of a part")
    return found[0]


def saying_named(db: sqlite3.Connection, ref: str) -> Saying | None:
    """The row that whoever said it named so."""
    return next(iter(_sayings(db, "WHERE ref = ?", (ref,))), None)


def label_of(db: sqlite3.Connection, key: PartKey) -> Label | None:
    """The last word of anybody about the newest labelled part of this name."""
    found = db.execute(_IN_FORCE, key).fetchone()
    return Label(found[0]) if found else None


def _sayings(db: sqlite3.Connection, rest: str, values: Sequence[int | str]) -> list[Saying]:
    return [_saying(row) for row in db.execute(f"SELECT {_COLUMNS} FROM saying {rest}", values)]


def _saying(row: Sequence[Any]) -> Saying:
    number, run, part, boot_id, part_id, label, undoes, defect, comment, by, where, *rest = row
    at_utc_ns, quality, saw_model, saw_digest, saw_verdict, is_undone, ref, box = rest
    return Saying(
        number,
        run,
        part,
        PartKey(boot_id, part_id),
        Label(label) if label else None,
        undoes,
        defect,
        comment,
        by,
        Where(where),
        at_utc_ns,
        quality,
        saw_model,
        saw_digest,
        Verdict(saw_verdict) if saw_verdict else None,
        bool(is_undone),
        ref or "",
        Box(*json.loads(box)) if box else None,
    )
