"""Who owns what is written into a state folder, whoever writes it.

The service runs as a user of its own; a technician installs and promotes as root, with any umask. What root leaves
behind as root's, or with modes of a umask of 077, the service cannot read or replace: so root's files go to the owner
of the folder they lie in, and modes follow that folder's and not the umask.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = 0
MOST_MODE = 0o755  # nobody but the owner writes, however open the folder is


@dataclass(frozen=True, slots=True)
class Custody:
    """Owner and modes of what is written below one folder. uid, gid: None where they cannot be given away."""

    uid: int | None
    gid: int | None
    folder_mode: int

    @property
    def file_mode(self) -> int:
        return self.folder_mode & 0o666

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those above that are missing. Raises OSError."""
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            self.take(one)

    def take(self, path: Path) -> None:
        """Give one file or folder its owner and mode. A link, and what is gone, is left alone. Raises OSError."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as err:
            if err.errno in (errno.ELOOP, errno.ENOENT):
                return
            raise
        try:
            self.take_open(fd)
        finally:
            os.close(fd)

    def take_open(self, fd: int) -> None:
        """The same for what is open. Somebody else's file keeps what it has: only its owner may change it."""
        is_at = os.fstat(fd)
        if os.geteuid() not in (ROOT, is_at.st_uid):
            return
        if self.uid is not None and self.gid is not None and (is_at.st_uid, is_at.st_gid) != (self.uid, self.gid):
            os.fchown(fd, self.uid, self.gid)
        mode = self.folder_mode if stat.S_ISDIR(is_at.st_mode) else self.file_mode
        if stat.S_IMODE(is_at.st_mode) & 0o777 != mode:
            os.fchmod(fd, mode | (is_at.st_mode & stat.S_ISGID))

    def mend(self, folder: Path) -> None:
        """As root: everything in a folder goes to its owner, also what an earlier root left behind. Raises OSError."""
        if self.uid is not None:
            self.take_tree(folder)

    def take_tree(self, folder: Path) -> None:
        """The same for a folder and everything in it."""
        for base, _, files in os.walk(folder, topdown=False):
            for name in files:
                self.take(Path(base, name))
            self.take(Path(base))


def custody_of(folder: Path) -> Custody:
    """How to write below `folder`, which need not be there yet. Raises OSError where it may not be looked at.

    A folder that root made by mistake inside another user's is taken for that user's.
    """
    home = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    about = home.stat()
    above = home.absolute().parent.stat()
    is_roots_mistake = about.st_uid == ROOT != above.st_uid and not above.st_mode & stat.S_IWOTH
    if is_roots_mistake:
        about = above
    if about.st_mode & stat.S_IWOTH:  # such as /tmp: it says nothing about its contents
        return Custody(None, None, MOST_MODE)
    mode = about.st_mode & MOST_MODE | stat.S_IRWXU
    if os.geteuid() != ROOT:
        return Custody(None, None, mode)
    return Custody(about.st_uid, about.st_gid, mode)


def rights_fix(folder: Path, *, to_write: bool) -> str:
    """What lets whoever asks use `folder`, one of a state folder's. A person becomes somebody; the service cannot."""
    with suppress(OSError):
        if os.geteuid() == folder.parent.stat().st_uid:
            return f"give it back to the user of the service: chown -R --reference={folder.parent} {folder}"
    return "become root or the service's user" if to_write else "become root or join the group of the service"
