"""Where pictures lie: `evidence/YYYY/MM/DD/HHMMSS.mmm-<boot>-<part>-<verdict>.jpg`, and who makes room for whom.

The name says what a picture is worth, so room is made without asking the journal. Accepted parts go first, then
rejects and unsure ones that a person has labelled, then unlabelled ones, the oldest of each first. A picture never
displaces one that is worth more. Only sums per day are held in memory: a full shelf has 30 000 files and more.
No threads, no clock.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from edge_runtime.core.clock import SECOND
from edge_runtime.core.messages import PartKey, Verdict

EVICT_SHARE = 0.01  # of the quota, freed in one go: listing a day of 10 000 pictures takes 10 ms
HEAT_SUFFIX = ".heat.png"
FIRST_PLAUSIBLE_DAY = "2024"  # pictures of a box that had no clock yet do not grow old, they only fill the quota
DAY_NS = 86_400 * SECOND


class QuotaFull(Exception):
    """The quota is full of pictures that are worth more than this one."""


class Shelf:
    """The `evidence` folder of a state folder, used by one thread.

    labelled: answers the files (relative to the state folder) of parts that have a human label.
    reserve_bytes: room on the disk that pictures leave for the journal.
    """

    def __init__(
        self,
        state: Path,
        quota_bytes: int,
        keep_days: Mapping[Verdict, int],
        reserve_bytes: int,
        labelled: Callable[[], set[str]] = set,
    ) -> None:
        self._state = state
        self.root = state / "evidence"
        self._unfinished = self.root / ".unfinished"
        self._quota = quota_bytes
        self._keep_days = keep_days
        self._reserve = reserve_bytes
        self._labelled = labelled
        self._days: dict[str, Counter[Verdict]] = {}  # day -> bytes by verdict
        self.removed: Counter[str] = Counter()

    @property
    def used_bytes(self) -> int:
        return sum(day.total() for day in self._days.values())

    def scan(self) -> None:
        """Make the folder, throw away what a crash left unfinished, and count the rest. Raises OSError."""
        self._unfinished.mkdir(parents=True, exist_ok=True)
        for file in self._unfinished.iterdir():
            file.unlink()
        self._days = {}
        for folder in self.root.glob("[0-9]*/[0-9]*/[0-9]*"):
            day = folder.relative_to(self.root).as_posix()
            names = {file.name for file in folder.iterdir()}
            for name in names:
                if name.endswith(HEAT_SUFFIX) and not _has_picture(name, names):
                    (folder / name).unlink()
                elif (verdict := _verdict(name)) is not None:
                    self._count(day, verdict, (folder / name).stat().st_size)

    def place(self, key: PartKey, verdict: Verdict, utc_ns: int, suffix: str) -> str:
        """The file of a picture, relative to the state folder."""
        at = datetime.fromtimestamp(utc_ns // SECOND, UTC)
        stamp = f"{at:%H%M%S}.{utc_ns // 1_000_000 % 1000:03d}"
        return f"evidence/{at:%Y/%m/%d}/{stamp}-{key.boot_id:04x}-{key.part_id}-{verdict}{suffix}"

    def put(self, file: str, verdict: Verdict, picture: bytes, heat: bytes | None) -> None:
        """Store a picture and its heat map, both whole or not at all. Raises QuotaFull or OSError."""
        size = len(picture) + len(heat or b"")
        path = self._state / file
        self._unfinished.mkdir(parents=True, exist_ok=True)
        self._make_room(size, verdict)
        path.parent.mkdir(parents=True, exist_ok=True)
        if heat is not None:
            self._write(heat_file(path), heat)
        self._write(path, picture)  # last: a picture that is there has its heat map
        self._count(path.parent.relative_to(self.root).as_posix(), verdict, size)

    def _write(self, path: Path, content: bytes) -> None:
        unfinished = self._unfinished / path.name
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # else a power cut leaves an empty file under the final name
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    # -- room ----------------------------------------------------------------------------------------------------------

    def _make_room(self, size: int, verdict: Verdict) -> None:
        over_quota = self.used_bytes + size - self._quota
        if over_quota > 0:
            worth_less = self._by_value(may_displace_rejects=verdict is not Verdict.ACCEPT)
            if self._remove(worth_less, over_quota + int(self._quota * EVICT_SHARE)) < over_quota:
                raise QuotaFull
        short = size + self._reserve - free_bytes(self.root)
        if short > 0 and self._remove(self._by_value(may_displace_rejects=False), short) < short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def expire(self, now_utc_ns: int) -> int:
        """Remove what is older than its class is kept. Answers the bytes that were freed."""
        freed = 0
        for verdict, days in self._keep_days.items():
            oldest = f"{datetime.fromtimestamp((now_utc_ns - days * DAY_NS) // SECOND, UTC):%Y/%m/%d}"
            old = [day for day in sorted(self._days) if FIRST_PLAUSIBLE_DAY <= day < oldest]
            freed += self._remove((path for day in old for path in self._pictures(day, (verdict,))), None)
        return freed

    def _by_value(self, *, may_displace_rejects: bool) -> Iterable[Path]:
        """Pictures, the least valuable first."""
        days = sorted(self._days)
        for day in days:
            yield from self._pictures(day, (Verdict.ACCEPT,))
        if not may_displace_rejects:
            return
        precious = (Verdict.REJECT, Verdict.UNSURE)
        labelled = self._labelled()
        if labelled:
            for day in days:
                for path in self._pictures(day, precious):
                    if path.relative_to(self._state).as_posix() in labelled:
                        yield path
        for day in days:
            yield from self._pictures(day, precious)

    def _pictures(self, day: str, verdicts: tuple[Verdict, ...]) -> list[Path]:
        held = self._days.get(day)
        if held is None or not any(held[verdict] for verdict in verdicts):
            return []
        try:
            files = sorted((self.root / day).iterdir())
        except FileNotFoundError:  # somebody tidied up by hand
            self._days.pop(day, None)
            return []
        return [file for file in files if not file.name.endswith(HEAT_SUFFIX) and _verdict(file.name) in verdicts]

    def _remove(self, pictures: Iterable[Path], wanted_bytes: int | None) -> int:
        """Remove pictures until so many bytes are free (None: all of them). Answers the bytes that were freed."""
        freed = 0
        for path in pictures:
            verdict, day = _verdict(path.name), path.parent.relative_to(self.root).as_posix()
            if verdict is None:
                continue
            size = _unlink(path) + _unlink(heat_file(path))
            freed += size
            self.removed[verdict] += 1
            self._count(day, verdict, -size)
            if self._days[day].total() <= 0:
                self._forget(day)
            if wanted_bytes is not None and freed >= wanted_bytes:
                break
        return freed

    def _forget(self, day: str) -> None:
        del self._days[day]
        folder = self.root / day
        try:
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent
        except OSError:  # not empty: another day of the month, or a file of somebody else's
            pass

    def _count(self, day: str, verdict: Verdict, size: int) -> None:
        self._days.setdefault(day, Counter())[verdict] += size


def heat_file(picture: Path) -> Path:
    """The heat map that lies beside a picture: 8-bit grey PNG over the whole frame, 255 is 1.0."""
    return picture.with_name(picture.stem + HEAT_SUFFIX)


def free_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def _verdict(name: str) -> Verdict | None:
    try:
        return Verdict(name.rpartition("-")[2].partition(".")[0])
    except ValueError:
        return None


def _has_picture(heat_name: str, names: set[str]) -> bool:
    stem = heat_name.removesuffix(HEAT_SUFFIX)
    return any(f"{stem}{suffix}" in names for suffix in (".jpg", ".png"))


def _unlink(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size
