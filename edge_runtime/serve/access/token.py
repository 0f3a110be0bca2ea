"""The box's token: who shows it may ask models (role `predict`). Made at the first start, told by `serve --token`.

256 bits from the system, so that nobody guesses it and no hash needs to be slow. It lies in the state folder, for its
owner alone; a file that others can read is refused, because others may have read it.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import sync

TOKEN = "serve.token"  # in the state folder
BYTES = 32
LEAST_CHARACTERS = 32  # a token that a site wrote itself
MOST_CHARACTERS = 512


def box_token(folder: Path) -> str:
    """The token of the box with this state folder; made where there is none. Raises StorageError."""
    path = folder / TOKEN
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            custody = custody_of(folder)
            custody.make_folder(folder)
            keep_secret(path, secrets.token_urlsafe(BYTES) + "\n")
            return _read(path)
    except OSError as err:
        raise StorageError(
            f"the token {path} cannot be read or made: {err.strerror or err}", "become root or the service's user"
        ) from err


def keep_secret(path: Path, content: str | bytes) -> None:
    """Write a file that its owner alone can read, from its first byte on and whatever the umask. Raises OSError."""
    custody = custody_of(path.parent)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        if custody.uid is not None and custody.gid is not None:
            os.fchown(fd, custody.uid, custody.gid)
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(fd)
    unfinished.replace(path)
    sync(path.parent)


def is_token(said: str, token: str) -> bool:
    """Whether somebody said the token, in a time that tells nothing about it."""
    return hmac.compare_digest(said.encode(errors="replace"), token.encode())


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise StorageError(
                f"{path} can be read by others than its owner (mode {stat.S_IMODE(mode):o})",
                f"delete it, a new one is made at the next start; or, if nobody read it: chmod 600 {path}",
            )
        token = file.read(MOST_CHARACTERS + 2).strip()
    if not (LEAST_CHARACTERS <= len(token) <= MOST_CHARACTERS and token.isascii() and token.isprintable()):
        raise StorageError(
            f"{path} holds no token of {LEAST_CHARACTERS} to {MOST_CHARACTERS} plain characters",
            "delete it, a new one is made at the next start",
        )
    return token
