"""The seal of an outbox: what shows that a file is the one that was written here last, and not a copy or an old state.

Two small files beside the database, because what is inside of it is copied, restored and damaged with it:

outbox.seal   rewritten and synced when the outbox is opened, closed, and every `BLOCK` numbers: numbers up to
              `reserved` may have been given away. The database notes the inode change time (ctime) that the file
              system gave to that write. A copy, a restored backup or a cloned folder has another one, by whatever tool:
              change times cannot be set.
outbox.last   written at each commit, not synced: the newest number, and what waits. It survives the death of this
              process, so a database that lost its newest commits (damaged log, older copy) is behind it.

After a power cut `outbox.last` may be older than the database. Then numbers go on after `reserved`: none is used twice,
whatever the medium forgot.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import SECOND
from edge_runtime.core.files import sync

BLOCK = 1000  # numbers that are reserved at a time: one sync of a small file for 1000 records
FILE_BYTES = 1024  # written as a whole over itself: needs no room on a full disk, and two sectors at most are torn
UNKNOWN_BOOT = "unknown"


@dataclass(frozen=True, slots=True)
class Seal:
    """`closed`: the last number when it was closed in good order, else None. `stamp`: the file's own change time."""

    epoch: str
    reserved: int
    closed: int | None
    boot: str
    before: int = 0  # stamp of the seal that this one replaced: a crash may keep the database from learning the new one
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class Last:
    """What the last commit left. made: records that no row of the journal stands for, numbered in this epoch, by kind;
    own: those of them that wait; rows: records of the journal that wait; pictures: that wait, as of 10 s ago at most.
    """

    epoch: str
    seq: int
    made: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    pictures: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """why: a new epoch must begin (`unsealed`, `copied`, `went_back`), or empty. after: the number to go on after."""

    why: str
    after: int


def judge(epoch: str, last_seq: int, known_stamp: int, seal: Seal | None, last: Last | None, boot: str) -> Judgement:
    """Whether the database with these is the one that was written here last. Pure."""
    if seal is None and known_stamp == 0:
        return Judgement("unsealed", last_seq)  # of the release before, which kept none: it may be a copy
    if seal is None or seal.epoch != epoch:
        return Judgement("copied", last_seq)
    is_not_learnt = known_stamp != 0 and is_same_stamp(
        known_stamp, seal.before
    )  # it died between the seal and the commit that notes it
    if not (is_same_stamp(known_stamp, seal.stamp) or is_not_learnt):
        return Judgement("copied", last_seq)
    if seal.closed is not None:
        return Judgement("" if seal.closed == last_seq else "went_back", last_seq)
    is_last_good = last is not None and last.epoch == epoch
    if is_last_good and last is not None and last.seq > last_seq:
        return Judgement("went_back", last_seq)
    if is_last_good and boot == seal.boot != UNKNOWN_BOOT:
        return Judgement("", last_seq)
    return Judgement("", max(last_seq, seal.reserved))


def is_same_stamp(one: int, other: int) -> bool:
    """Some file systems keep whole seconds only, once the file is no longer in memory."""
    if one == other:
        return True
    return one // SECOND == other // SECOND and 0 in (one % SECOND, other % SECOND)


# -- files -------------------------------------------------------------------------------------------------------------


def seal_file(outbox: Path) -> Path:
    return outbox.with_suffix(".seal")


def last_file(outbox: Path) -> Path:
    return outbox.with_suffix(".last")


def read_seal(outbox: Path) -> Seal | None:
    """None where there is none that makes sense."""
    try:
        with seal_file(outbox).open("rb") as file:
            stamp = os.fstat(file.fileno()).st_ctime_ns
            return Seal(**_unpacked(file.read(FILE_BYTES)), stamp=stamp)
    except (OSError, ValueError, TypeError):
        return None


def write_seal(outbox: Path, seal: Seal) -> Seal:
    """On the medium when this returns; the seal with the stamp that it got. Raises OSError."""
    path = seal_file(outbox)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        content = asdict(seal)
        del content["stamp"]
        os.pwrite(descriptor, _packed(content), 0)
        os.fsync(descriptor)  # not fdatasync: the change time has to be on the medium, too
        stamp = os.fstat(descriptor).st_ctime_ns
    finally:
        os.close(descriptor)
    if is_new:
        sync(path.parent)
    return Seal(seal.epoch, seal.reserved, seal.closed, seal.boot, seal.before, stamp)


def stamp_of(outbox: Path) -> int:
    """The change time of the seal; 0 where there is none."""
    try:
        return seal_file(outbox).stat().st_ctime_ns
    except OSError:
        return 0


def read_last(outbox: Path) -> Last | None:
    """None where there is none that makes sense."""
    try:
        return Last(**_unpacked(last_file(outbox).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class LastFile:
    """`outbox.last`, kept open. Raises OSError."""

    def __init__(self, outbox: Path) -> None:
        self._descriptor = os.open(last_file(outbox), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, last: Last) -> None:
        """Survives this process from here on. Takes 10 us."""
        os.pwrite(self._descriptor, _packed(asdict(last)), 0)

    def is_gone(self) -> bool:
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        os.close(self._descriptor)


def _packed(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text.ljust(FILE_BYTES - 10))


def _unpacked(data: bytes) -> dict[str, Any]:
    """Raises ValueError or TypeError where it is not what was written."""
    text = data[9:].rstrip()
    if int(data[:8], 16) != zlib.crc32(text):
        raise ValueError("checksum")
    return dict(json.loads(text))
