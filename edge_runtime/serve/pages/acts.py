"""What people do on the pages: label a part, take that back, hold the line and let it go on, ask by voice.

Nothing here is new to the box: each act is a request that the running box takes from its command line as well, and a
label goes the way of all labels, so that it is on the disk when the page says so, whether or not the box runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import OPERATOR, Box, HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.recording.reader import JournalReader, PartRow
from edge_runtime.recording.say_label import box_of, say, take_back

MOST_PART_NAME = 16  # "ffff-4294967295"
MODEL_SPOKE = "model"  # the cause of a verdict that the model gave


@dataclass(frozen=True, slots=True)
class Said:
    """A label that is on the disk. number: names it for an undo."""

    number: int
    part: str
    label: str


class Labels:
    """Any thread."""

    def __init__(self, journal: Path, socket: Path) -> None:
        self.journal, self._socket = journal, socket

    def say(self, words: Mapping[str, Any], by: str) -> Said:
        """words: `part` (its name) or `row`; `label`; `defect`, `comment`, `box`, `saw` (whether they saw what the
        model said) and `ref` (a name of the label's own, so that it may be said again) where they are given. Raises
        UsageError, StorageError, DeviceError."""
        row = self.row(words)
        saw = row.cause == MODEL_SPOKE and _flag(words, "saw")
        label = HumanLabel(
            PartKey(row.boot_id, row.part_id),
            _label(words),
            monotonic_ns(),
            by or OPERATOR,
            Where.PAGE,
            text(words, "defect", 64),
            text(words, "comment", 500),
            row.model or "" if saw else "",
            Verdict(row.verdict) if saw and row.verdict else None,
            row=row.id,
            ref=text(words, "ref", 64),
            box=_box(words),
        )
        return Said(say(self.journal, self._socket, label).id, row.part, str(label.label))

    def take_back(self, words: Mapping[str, Any], by: str) -> None:
        """words: `number` of the label, `ref` as of `say`. Raises as that does."""
        number, ref = whole(words, "number"), text(words, "ref", 64)
        take_back(self.journal, self._socket, number, by or OPERATOR, Where.PAGE, ref=ref)

    def row(self, words: Mapping[str, Any]) -> PartRow:
        """The part that is meant. Raises UsageError for no name of one, StorageError where there is none."""
        with JournalReader(self.journal) as reader:
            if words.get("row") is not None:
                found = reader.part(whole(words, "row"))
            else:
                found = reader.part_by_key(key_of(text(words, "part", MOST_PART_NAME)))
        if found is None:
            raise StorageError(f"there is no part {words.get('row', words.get('part'))} in the journal")
        return found


def key_of(name: str) -> PartKey:
    """`7f38-28`. Raises UsageError."""
    boot, dash, number = name.partition("-")
    try:
        if not dash or not number.isdecimal():
            raise ValueError
        key = PartKey(int(boot, 16), int(number))
    except ValueError:
        raise UsageError(f"{name!r} is no part; one is named like 7f38-28") from None
    if not (0 <= key.boot_id < 2**16 and key.part_id < 2**32):
        raise UsageError(f"{name!r} is no part; one is named like 7f38-28")
    return key


def _label(words: Mapping[str, Any]) -> Label:
    said = words.get("label")
    if said not in list(Label):
        raise UsageError(f"label {said!r} is none of {', '.join(Label)}")
    return Label(str(said))


def _box(words: Mapping[str, Any]) -> Box | None:
    try:
        return box_of(words.get("box"))
    except (TypeError, KeyError) as err:
        raise UsageError(str(err)) from err


def text(words: Mapping[str, Any], name: str, most: int, default: str = "") -> str:
    """Raises UsageError."""
    value = words.get(name, default)
    if not isinstance(value, str) or len(value) > most:
        raise UsageError(f"{name} must be text of at most {most} characters")
    return value


def whole(words: Mapping[str, Any], name: str) -> int:
    """Raises UsageError."""
    value = words.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise UsageError(f"{name} must be a whole number, not {value!r}")
    return value


def _flag(words: Mapping[str, Any], name: str) -> bool:
    value = words.get(name, True)
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, not {value!r}")
    return value
