"""Sample pictures of a folder, and which of them show good parts and which bad ones, by the folders they lie in.

DIR/good/..., DIR/bad/...           also ok, accept, pass; ng, nok, reject, defect, defective, fail
DIR/bad/scratch/...                 one folder further, whatever its name
DIR/<label of the model>/...        good or bad as the label is
DIR/...                             of these nobody says which is good: judged and drawn, no limit comes from them
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_runtime.core.errors import UsageError
from edge_runtime.core.manifest import OutputSpec
from edge_runtime.media.picture import SUFFIXES, pictures_in

GOOD, BAD = ("good", "ok", "accept", "pass"), ("bad", "ng", "nok", "reject", "defect", "defective", "fail")
MOST_SAMPLES = 2000  # of each kind; evenly spaced ones of a larger folder are taken

Truth = Literal["good", "bad", ""]


@dataclass(frozen=True, slots=True)
class Sample:
    path: Path
    truth: Truth


def find_samples(folder: Path, output: OutputSpec) -> list[Sample]:
    """Every sample, by name. Raises UsageError when there is none, or a folder's name does not tell what is in it."""
    try:
        found = [Sample(path, "") for path in _spaced(pictures_in(folder))]
        for room in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            truth = _truth(room, output)
            found += [Sample(path, truth) for path in _spaced(list(_pictures_below(room)))]
    except OSError as err:
        raise UsageError(f"{err.filename or folder}: cannot be read ({err.strerror or err})") from err
    if not found:
        raise UsageError(f"{folder}: no pictures ({', '.join(SUFFIXES)}) in this folder, in good/ or in bad/")
    return found


def _pictures_below(room: Path) -> Iterator[Path]:
    yield from pictures_in(room)
    for inner in sorted(path for path in room.iterdir() if path.is_dir() and not path.name.startswith(".")):
        yield from pictures_in(inner)


def _truth(room: Path, output: OutputSpec) -> Truth:
    name = room.name.lower()
    if name in GOOD:
        return "good"
    if name in BAD:
        return "bad"
    for label in output.labels:
        if label.lower() == name:
            return "bad" if label in output.defect_labels else "good"
    raise UsageError(
        f"{room}: neither good nor bad, and no label of the model",
        "name the folders of samples good and bad, or as the labels",
    )


def _spaced(paths: Sequence[Path]) -> list[Path]:
    if len(paths) <= MOST_SAMPLES:
        return list(paths)
    return [paths[number * len(paths) // MOST_SAMPLES] for number in range(MOST_SAMPLES)]
