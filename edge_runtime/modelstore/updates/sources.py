"""Where an update repository is read from: a folder, such as a USB stick, or a web server (`https.py`).

A source hands over bytes and proves nothing. What they are worth is decided by signatures and digests, in `trust.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from edge_runtime.core.errors import EdgeError

PIECE_BYTES = 1 << 16
_PULLED = (
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOMEDIUM,
    errno.ESTALE,
)  # of a medium that is not there any more


class SourceError(EdgeError):
    """The source does not deliver: mend the way to it, or try again. Nothing was changed."""


class NotThere(SourceError):
    """The source answers, and has no such file."""


class Interrupted(SourceError):
    """The source stopped in the middle: asking again goes on from there."""


class Source(Protocol):
    """A repository as files by name, `metadata/timestamp.json`."""

    where: str  # as people know it

    def pieces(self, name: str, most: int, start: int = 0) -> Iterator[bytes]:
        """The file's bytes from `start` on, never more than `most` and one piece of it in all. Raises SourceError."""
        ...


class FolderSource:
    """A repository in a folder. A stick that is taken out in the middle is told as that."""

    def __init__(self, folder: Path) -> None:
        folder = folder.absolute()
        self.where = str(folder)
        self._folder = folder
        if not (folder / "metadata").is_dir():
            if not folder.is_dir():
                raise SourceError(f"{folder}: no such folder", "put the stick in, and name the folder it is mounted on")
            raise SourceError(
                f"{folder} holds no update repository: it has no folder metadata/",
                "name the folder that `tools/repo init` made",
            )

    def pieces(self, name: str, most: int, start: int = 0) -> Iterator[bytes]:
        try:
            # never through a link or into a pipe: a stick is what a stranger made
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SourceError(
                        f"{self._folder / name} is no plain file", "make the repository anew on the stick"
                    )
                file.seek(start)
                sent = start
                while sent <= most and (piece := file.read(PIECE_BYTES)):
                    sent += len(piece)
                    yield piece
        except OSError as err:
            raise self._told(name, err) from err

    def _told(self, name: str, err: OSError) -> SourceError:
        if err.errno in _PULLED or not (self._folder / "metadata").is_dir():  # a mount point stays, empty
            return Interrupted(
                f"{self._folder} was taken away while {name} was read",
                "put the stick back in, and ask again: it goes on where it stopped",
            )
        if isinstance(err, FileNotFoundError):
            return NotThere(f"{self._folder} has no {name}", "copy the whole repository onto the stick again")
        return SourceError(f"{self._folder / name} cannot be read: {err.strerror or err}", "look at the stick")
