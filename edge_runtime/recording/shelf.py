"""Where pictures lie: `evidence/YYYY/MM/DD/HHMMSS.mmm-<boot>-<part>-<verdict>.jpg`, and who makes room for whom.

The name says most of what a picture is worth, the labels in force the rest. Accepted parts go first, then rejects and
unsure ones, then what a person labelled, last what a person called a reject: there are few defects to learn from, and
nobody can label one again whose picture is gone. The oldest of each first. A picture never displaces one that is worth
more, and what is labelled goes for want of room only, never for its age. Only sums per day are held in memory: a full
shelf has 30 000 files and more.

The oldest day is the one that was written to longest ago by the time that the box was on, not by its name: pictures of
an hour when the clock was years ahead or behind go in their turn, and the true ones beside them keep theirs. Folders
of unknown age, from before this was noted, go by their names. Within a day the names order. No threads, no clock.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from edge_runtime.core.clock import SECOND
from edge_runtime.core.files import write_atomic
from edge_runtime.core.messages import Label, PartKey, Verdict
from edge_runtime.recording.retention import Retention

EVICT_SHARE = 0.01  # of the quota, freed in one go: listing a day of 10 000 pictures takes 10 ms
HEAT_SUFFIX = ".heat.png"
DAY_NS = 86_400 * SECOND


LabelOf = Callable[[PartKey], Label | None]  # what people say of a part in the end; None: nobody said anything
Labels = Callable[[], AbstractContextManager[LabelOf]]


def nobody_labels() -> AbstractContextManager[LabelOf]:
    return nullcontext(lambda _: None)


class QuotaFull(Exception):
    """The quota is full of pictures that are worth more than this one."""


class Shelf:
    """The `evidence` folder of a state folder, used by one thread.

    labelled: opens a look at the labels in force.
    reserve_bytes: room on the disk that pictures leave for the journal.
    """

    def __init__(
        self,
        state: Path,
        quota_bytes: int,
        keep_days: Mapping[Verdict, int],
        reserve_bytes: int,
        retention: Retention,
        labelled: Labels = nobody_labels,
    ) -> None:
        self._state = state
        self.root = state / "evidence"
        self._unfinished = self.root / ".unfinished"
        self._quota = quota_bytes
        self._keep_days = keep_days
        self._reserve = reserve_bytes
        self._retention = retention
        self._labelled = labelled
        self._held: Counter[Verdict] = Counter()  # pictures by verdict
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
        self._days, self._held = {}, Counter()
        for folder in self.root.glob("[0-9]*/[0-9]*/[0-9]*"):
            day = folder.relative_to(self.root).as_posix()
            names = {file.name for file in folder.iterdir()}
            for name in names:
                if name.endswith(HEAT_SUFFIX) and not _has_picture(name, names):
                    (folder / name).unlink()
                elif (verdict := _verdict(name)) is not None:
                    self._count(day, verdict, (folder / name).stat().st_size)
                    self._held[verdict] += not name.endswith(HEAT_SUFFIX)
        self._retention.on_time.keep_only("evidence/", (f"evidence/{day}" for day in self._days))
        for day in self._days:
            self._written_on(day)

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
        for place, content in ((heat_file(path), heat), (path, picture)):  # a picture that is there has its heat map
            if content is not None:
                write_atomic(place, content, beside=self._unfinished / place.name, sync_folder=False)
        self._count(path.parent.relative_to(self.root).as_posix(), verdict, size)
        self._held[verdict] += 1
        self._retention.on_time.wrote(path.parent.relative_to(self._state).as_posix())

    # -- room ----------------------------------------------------------------------------------------------------------

    def _make_room(self, size: int, verdict: Verdict) -> None:
        over_quota = self.used_bytes + size - self._quota
        if over_quota > 0:
            may_displace_rejects = verdict is not Verdict.ACCEPT
            if self._free(over_quota + int(self._quota * EVICT_SHARE), may_displace_rejects) < over_quota:
                raise QuotaFull
        short = size + self._reserve - free_bytes(self.root)
        if short > 0 and self._free(short, may_displace_rejects=False) < short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _free(self, wanted_bytes: int, may_displace_rejects: bool) -> int:
        with self._labelled() as label_of:
            return self._remove(self._by_value(label_of, may_displace_rejects), wanted_bytes)

    def expire(self) -> int:
        """Remove a few that are older than their class is kept, as far as `retention` lets. Answers how many went."""
        gone = 0
        for verdict, days in self._keep_days.items():
            what, keep_ns = f"pictures.{verdict}", days * DAY_NS
            may = self._retention.grant(what, self._held[verdict], keep_ns)
            if may <= 0:
                continue
            old = [day for day in self._by_age() if self._is_old(day, keep_ns)]
            before = self.removed[verdict]
            with self._labelled() as label_of:
                self._remove((path for path in self._of(old, (verdict,)) if _label(path, label_of) is None), most=may)
            self._retention.note_removed(what, self.removed[verdict] - before)
            gone += self.removed[verdict] - before
        return gone

    def _is_old(self, day: str, keep_ns: int) -> bool:
        """The whole day is."""
        try:
            ends_s = datetime.strptime(day, "%Y/%m/%d").replace(tzinfo=UTC).timestamp() + 86_400
        except ValueError:  # no such day: a date that has no say
            ends_s = 0.0
        return self._retention.is_old(self._written_on(day), int(ends_s) * SECOND, keep_ns)

    def _written_on(self, day: str) -> int:
        return self._retention.on_time.of_folder(f"evidence/{day}")

    def _by_age(self) -> list[str]:
        return sorted(self._days, key=lambda day: (self._written_on(day), day))

    def _by_value(self, label_of: LabelOf, may_displace_rejects: bool) -> Iterator[Path]:
        """Pictures, the least valuable first."""
        days = self._by_age()
        classes = [(Verdict.ACCEPT,), *([(Verdict.REJECT, Verdict.UNSURE)] if may_displace_rejects else [])]
        labelled = set()
        for verdicts in classes:
            for path in self._of(days, verdicts):
                label = _label(path, label_of)
                if label is None:
                    yield path
                else:
                    labelled.add(label)
        if may_displace_rejects:
            for labels in ({Label.ACCEPT, Label.CANNOT_TELL}, {Label.REJECT}):
                if labels & labelled:
                    yield from (path for path in self._of(days, tuple(Verdict)) if _label(path, label_of) in labels)

    def _of(self, days: Iterable[str], verdicts: tuple[Verdict, ...]) -> Iterator[Path]:
        """Pictures of these days with these verdicts, in order."""
        return (path for day in days for path in self._pictures(day, verdicts))

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

    def _remove(self, pictures: Iterable[Path], wanted_bytes: int | None = None, most: int | None = None) -> int:
        """Remove pictures until so many bytes are free, or so many are gone. Answers the bytes that were freed."""
        freed = 0
        for path in itertools.islice(pictures, most):
            verdict, day = _verdict(path.name), path.parent.relative_to(self.root).as_posix()
            if verdict is None:
                continue
            size = _unlink(path) + _unlink(heat_file(path))
            freed += size
            self.removed[verdict] += 1
            self._held[verdict] -= 1
            self._count(day, verdict, -size)
            if self._days[day].total() <= 0:
                self._forget(day)
            if wanted_bytes is not None and freed >= wanted_bytes:
                break
        return freed

    def _forget(self, day: str) -> None:
        del self._days[day]
        self._retention.on_time.forget(f"evidence/{day}")
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


def _part(name: str) -> PartKey | None:
    """Whose picture it is: the name is `HHMMSS.mmm-<boot>-<part>-<verdict>.jpg`. None: somebody else's."""
    try:
        _, boot, part, _ = name.split("-")
        return PartKey(int(boot, 16), int(part))
    except ValueError:
        return None


def _label(picture: Path, label_of: LabelOf) -> Label | None:
    key = _part(picture.name)
    return None if key is None else label_of(key)


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
