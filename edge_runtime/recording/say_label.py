"""Say something about a part from outside of `run`: page, command line, import. Whether or not the box runs.

The journal has one writer. While the box runs that is its own, which is asked over the control socket; while it does
not, the row is written here, under the same lock. Either way a label that was taken is on the disk.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import Box, HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.process.control import NobodyThere, ask
from edge_runtime.recording.database import FileLock, NewerSchema
from edge_runtime.recording.labels import Saying, append, checked, undo_of
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.schema import open_for_writing
from edge_runtime.recording.trouble import explain
from edge_runtime.recording.wall_clock import WallClock

REQUEST = "label"  # what a running box is asked
TURN_S = 5.0  # for the others who say something at the same moment: each holds the journal for 5-20 ms
TURN_EVERY_S = 0.005


class _Taken(StorageError):
    """Somebody else writes the journal now: another reviewer, or a box that has just begun to run."""


def say(journal: Path, socket: Path, label: HumanLabel) -> Saying:
    """Bring a label into the journal; its row, on the disk when this returns, with the moment of its arrival there.

    One whose `ref` is there already is not written again, so that who did not hear the answer may say it once more.
    Raises UsageError for one that makes no sense, StorageError where there is no such part or the disk refuses,
    DeviceError when a box runs and does not answer.
    """
    label = checked(label if label.ref else replace(label, ref=uuid.uuid4().hex))
    with _reader(journal) as reader:
        known = reader.saying_named(label.ref)
        if known is None:
            _refuse_unknown(reader, label)
    if known is None:
        _write(journal, socket, label)
        with _reader(journal) as reader:
            known = reader.saying_named(label.ref)
    if known is None:
        raise StorageError("the journal refused the label: see `edge-runtime status`, then say it once more")
    return _same(known, label)


def _write(journal: Path, socket: Path, label: HumanLabel) -> None:
    patience_ends = time.monotonic() + TURN_S
    while True:
        try:
            answer = ask(socket, REQUEST, **to_words(label))
            break
        except NobodyThere:
            with suppress(_Taken):
                write_alone(journal, label)
                return
        if time.monotonic() > patience_ends:
            raise StorageError(f"another process holds {journal} and answers nobody: see `edge-runtime doctor`")
        time.sleep(TURN_EVERY_S)
    if not answer["is_written"]:
        raise StorageError("the disk refuses: the label waits in the memory of edge-runtime; see `edge-runtime status`")


def _same(known: Saying, label: HumanLabel) -> Saying:
    there, said = ((one.key, one.label, one.undoes, one.by) for one in (known, label))
    if there != said:
        raise UsageError(f"the name {label.ref!r} is that of label {known.id} already, which says something else")
    return known


def take_back(
    journal: Path, socket: Path, number: int, by: str, where: Where, comment: str = "", ref: str = "",
    clock: Clock = monotonic_ns,
) -> None:  # fmt: skip
    """Undo one label by its number in the journal. Raises as `say` does, and UsageError when it was undone before."""
    with _reader(journal) as reader:
        saying = reader.saying(number)
        if ref and reader.saying_named(ref) is not None:  # said once more by who did not hear the answer
            saying = replace(saying, is_undone=False)
    say(journal, socket, undo_of(saying, clock(), by, where, comment, ref))


def _reader(journal: Path) -> JournalReader:
    reader = JournalReader(journal)
    if not reader.is_present:
        reader.close()
        raise StorageError(f"{journal} is of an earlier version: start `edge-runtime run` once to bring it up")
    return reader


def _refuse_unknown(reader: JournalReader, label: HumanLabel) -> None:
    """A slip of the finger must not become a label of nothing. What is taken back may be about a part that has gone."""
    about: PartKey | None
    if label.undoes is not None:
        about = reader.saying(label.undoes).key
    else:
        part = reader.part(label.row) if label.row is not None else reader.part_by_key(label.key)
        about = PartKey(part.boot_id, part.part_id) if part else None
    if about != label.key:
        name, what = f"{label.key.boot_id:04x}-{label.key.part_id}", f"row {label.row}" if label.row else "the journal"
        raise StorageError(f"there is no part {name} in {what}; look at `edge-runtime parts list`")


def write_alone(
    journal: Path, label: HumanLabel, clock: Clock = monotonic_ns, utc_ns: Callable[[], int] = time.time_ns
) -> None:
    """Write a label while no box runs on this journal. Raises StorageError."""
    wall = WallClock(clock, utc_ns)
    wall.refresh()
    with _alone(journal) as db:
        (run,) = db.execute("SELECT max(id) FROM run").fetchone()
        if run is None:
            raise StorageError(f"no run is recorded in {journal}: there is nothing to label")
        db.execute("BEGIN IMMEDIATE")
        append(db, run, replace(label, at_ns=clock()), wall, in_run=False)
        db.execute("COMMIT")


@contextmanager
def _alone(journal: Path) -> Iterator[sqlite3.Connection]:
    lock = FileLock(journal)
    try:
        lock.take()
        db = open_for_writing(journal)
        try:
            yield db
        finally:
            db.close()
    except BlockingIOError as err:
        raise _Taken(f"{journal} is written by another process; say it once more") from err
    except (sqlite3.Error, OSError) as err:
        raise StorageError(explain(err, "the journal", journal.parent)) from err
    except NewerSchema as err:
        raise StorageError(f"{journal} was written by a newer edge-runtime ({err}): use that one") from err
    finally:
        lock.free()


# -- as a request ------------------------------------------------------------------------------------------------------


def to_words(label: HumanLabel) -> dict[str, Any]:
    """A label as the request carries it: JSON types, without the moment, which is that of its arrival."""
    words = {**asdict(label), "boot_id": label.key.boot_id, "part_id": label.key.part_id}
    del words["key"], words["at_ns"]
    return words


def of_words(words: Mapping[str, Any], at_ns: int) -> HumanLabel:
    """The label of a request. Raises UsageError."""
    try:
        label, saw = words.get("label"), words.get("saw_verdict")
        return checked(
            HumanLabel(
                PartKey(_number(words["boot_id"], 2**16), _number(words["part_id"], 2**32)),
                None if label is None else Label(label),
                at_ns,
                _text(words["by"]),
                Where(words["where"]),
                _text(words.get("defect", "")),
                _text(words.get("comment", "")),
                _text(words.get("saw_model", "")),
                None if saw is None else Verdict(saw),
                None if words.get("undoes") is None else _number(words["undoes"]),
                None if words.get("row") is None else _number(words["row"]),
                _text(words.get("ref", "")),
                box_of(words.get("box")),
            )
        )
    except (KeyError, ValueError, TypeError) as err:
        raise UsageError(f"the request holds no label: {err}") from err


def box_of(value: Any) -> Box | None:
    """Of JSON. Raises TypeError, KeyError; whether it lies within the picture is `checked`'s."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"x", "y", "w", "h"}:
        raise TypeError(f"{value!r} is no box: it is {{x, y, w, h}}")
    for side in value.values():
        if not isinstance(side, int | float) or isinstance(side, bool):
            raise TypeError(f"{side!r} is no side of a box")
    return Box(*(float(value[name]) for name in "xywh"))


def _number(value: Any, below: int = 2**63) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise TypeError(f"{value!r} is no number from 0 to {below - 1}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
