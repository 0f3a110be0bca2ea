"""Recordings of a folder, as rows of sound. A shift is read block by block: an hour of rows is 2 MB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_runtime.core.errors import UsageError
from edge_runtime.features.mel import MelStream
from edge_runtime.features.sound_validity import REASON, SoundCheck
from edge_runtime.inference.sound_memory import F32, mean_rows
from edge_runtime.learning.sound_fit import Progress
from edge_runtime.learning.sound_rows import MEL, RATE_HZ, ROW_HOPS, ROW_S
from edge_runtime.media.sound_file import SUFFIXES, SoundError, clipped_share, open_sound

NORMAL, ABNORMAL = "normal", "abnormal"
ABNORMAL_NAMES = ("abnormal", "anomaly")  # how public collections of machine sound begin the names of such files
MOST_FILES = 2000
MOST_CLIPPED = 0.01  # of a recording's samples; beyond it the converter is heard, not the machine
GOLDEN_S = 10.0


@dataclass(frozen=True, slots=True)
class Recording:
    """rows: (n, bands). start: its first seconds, for the golden sound. level_dbfs: of all of it."""

    name: str
    rows: F32
    start: F32
    level_dbfs: float

    @property
    def seconds(self) -> float:
        return len(self.rows) * ROW_S


@dataclass(frozen=True, slots=True)
class Recordings:
    normal: list[Recording] = field(default_factory=list)
    abnormal: list[Recording] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # one line for each file that was left out
    digest: str = ""  # SHA-256 over the digests of the normal files, in order of their names


def load_recordings(folder: Path, progress: Progress | None = None) -> Recordings:
    """Read a folder, or its `normal/` and `abnormal/`. In a flat one, files named abnormal* or anomaly* do not teach.

    Raises UsageError when there is nothing that could teach.
    """
    normal, abnormal = _files(folder)
    if not normal:
        raise UsageError(f"{folder}: no recordings of normal sound ({', '.join(SUFFIXES)}) in it or in its `normal/`")
    found = Recordings()
    digest = hashlib.sha256()
    total = len(normal) + len(abnormal)
    for number, path in enumerate([*normal, *abnormal]):
        if progress:
            progress("reading", number, total)
        is_normal = number < len(normal)
        try:
            (found.normal if is_normal else found.abnormal).append(read_recording(path))
        except SoundError as err:
            found.skipped.append(str(err))
            continue
        if is_normal:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    if not found.normal:
        raise UsageError(f"{folder}: none of {len(normal)} recordings can be used; first: {found.skipped[0]}")
    return Recordings(found.normal, found.abnormal, found.skipped, digest.hexdigest())


def read_recording(path: Path) -> Recording:
    """Raises SoundError for what must not teach: unreadable, dead or stuck for a second, clipped, too short."""
    check = SoundCheck()
    _, blocks = open_sound(path, RATE_HZ, check)
    stream = MelStream(RATE_HZ, MEL)
    parts: list[F32] = []
    start = np.empty(0, np.float32)
    rest = np.empty((0, MEL.bands), np.float32)
    power = clipped = 0.0
    count = 0
    for block in blocks:
        frames = np.concatenate([rest, stream(block)])
        parts.append(mean_rows(frames, ROW_HOPS))
        rest = frames[len(parts[-1]) * ROW_HOPS :]
        if len(start) < GOLDEN_S * RATE_HZ:
            start = np.concatenate([start, block])[: int(GOLDEN_S * RATE_HZ)]
        count += len(block)
        clipped += clipped_share(block) * len(block)
        power += float(np.square(block, dtype=np.float64).sum())
    rows = np.concatenate(parts) if parts else rest
    if count and (why := check.why):
        raise SoundError(f"{path}: {REASON}: {why}", "mend it and record again")
    if clipped > MOST_CLIPPED * count:
        raise SoundError(
            f"{path}: {clipped / count:.1%} of it is clipped", "turn the microphone's gain down, record again"
        )
    if not len(rows):
        raise SoundError(f"{path}: {count / RATE_HZ:.2f} s of sound, shorter than {ROW_S:.2f} s")
    return Recording(path.name, rows, start, 10.0 * float(np.log10(power / count)))


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    if (folder / NORMAL).is_dir():
        return list(_sounds(folder / NORMAL)), list(_sounds(folder / ABNORMAL))
    flat = list(_sounds(folder))
    abnormal = [path for path in flat if path.name.lower().startswith(ABNORMAL_NAMES)]
    return [path for path in flat if path not in abnormal], abnormal


def _sounds(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as err:
        raise UsageError(f"{folder}: cannot be read ({err.strerror or err})") from err
    if len(files) > MOST_FILES:
        raise UsageError(f"{folder}: {len(files)} recordings, at most {MOST_FILES} are read", "join them or take fewer")
    yield from files
