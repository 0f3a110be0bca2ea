"""One bundle file out of a repository: bounded, resumed where it stopped, opened by nobody before its digest fits.

It grows as `SHA256.part` and gets its name `SHA256.tar` once length and SHA-256 are those that were signed. Both lie in
the state folder, never in /tmp, which may be memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import sync
from edge_runtime.modelstore.updates.sources import Interrupted, NotThere, Source, SourceError
from edge_runtime.modelstore.updates.trust import Offer, UpdateRefused

log = logging.getLogger(__name__)

Told = Callable[[str, int, int], None]  # what is being done, how many bytes are done, of how many

FRUITLESS = 3  # attempts in a row that brought nothing
SPARE_BYTES = 32 << 20  # what the journal needs meanwhile


class Stopped(SourceError):
    """Somebody wants the program to end."""


def fetch(
    source: Source,
    offer: Offer,
    into: Path,
    told: Told = lambda what, done, of: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """The offered file, whole and compared. Raises SourceError, UpdateRefused or StorageError; what came is kept."""
    done, part = into / f"{offer.sha256}.tar", into / f"{offer.sha256}.part"
    custody = custody_of(into.parent)
    try:
        custody.make_folder(into)
        _clear(into, (done, part))
        if _is_whole(done, offer):
            return done
        done.unlink(missing_ok=True)
        _need_room(into, offer.length - _size(part))
        _complete(source, offer, part, told, should_stop)
        custody.take(part)
        sync(part)
        part.rename(done)
        sync(into)
    except OSError as err:
        raise StorageError(f"cannot keep {offer.label} in {into}: {err.strerror or err}", "make room there") from err
    return done


def _complete(source: Source, offer: Offer, part: Path, told: Told, should_stop: Callable[[], bool]) -> None:
    """Append until the file is whole. A part of before that turns out wrong is begun anew, once."""
    is_resumed = _size(part) > 0
    fruitless = 0
    while True:
        before = _size(part)
        try:
            if before < offer.length:
                _append(source, offer, part, told, should_stop)
            if _is_whole(part, offer):
                return
            problem = f"{source.where}: {offer.label} is not the file that was signed"
        except Interrupted as err:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless >= FRUITLESS:
                raise
            log.info("updates.retry %s", err)
            continue
        except NotThere as err:
            raise UpdateRefused(
                f"{source.where} lacks the file of {offer.label}, which it lists", "copy or publish it again, whole",
                "damaged",
            ) from err  # fmt: skip
        part.unlink(missing_ok=True)
        if not is_resumed:
            raise UpdateRefused(problem, "copy or publish it again", "altered")
        is_resumed = False


def _append(source: Source, offer: Offer, part: Path, told: Told, should_stop: Callable[[], bool]) -> None:
    start = _size(part)
    with part.open("ab") as file:
        size = start
        for piece in source.pieces(offer.path, offer.length, start):
            size += len(piece)
            if size > offer.length:
                file.truncate(0)
                raise UpdateRefused(
                    f"{source.where}: {offer.label} has more than the {offer.length} bytes that were signed",
                    "copy or publish it again", "altered",
                )  # fmt: skip
            file.write(piece)
            told(offer.label, size, offer.length)
            if should_stop():
                raise Stopped(f"{offer.label}: stopped at {size} of {offer.length} bytes", "the next attempt goes on")
    if size < offer.length:
        raise Interrupted(
            f"{source.where}: {offer.label} ends after {size} of {offer.length} bytes",
            "copy or publish it again, whole",
        )


def _is_whole(path: Path, offer: Offer) -> bool:
    if _size(path) != offer.length:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == offer.sha256


def _clear(folder: Path, keep: tuple[Path, ...]) -> None:
    """What was fetched of other releases is of no use any more."""
    for left in folder.iterdir():
        if left not in keep and left.suffix in (".tar", ".part"):
            left.unlink(missing_ok=True)


def _need_room(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    needed = 2 * missing + SPARE_BYTES  # the archive, and the bundle that is unpacked beside it
    if free < needed:
        raise StorageError(f"{folder} has {free / 1e6:.0f} MB left, {needed / 1e6:.0f} are needed", "make room there")


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - one way of asking for what may not be there
    except FileNotFoundError:
        return 0
