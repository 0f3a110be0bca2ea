"""A look at the repository, a download, a landing in the store: each under the lock of updates, each safe to kill.

    look     metadata followed from the trusted root; the release of a model for this site
    fetch    its file, whole and compared, beside the store
    land     unpacked into the store and noted as signed; the caller tries it, then makes it the candidate

The number of the release is noted last: whoever is killed before does the same again, and every step of it is harmless
the second time. Expiry stops this here and nothing else: what runs goes on running.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from edge_runtime.config.paths import at_home, state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import ConfigError, ModelError, StorageError
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.provenance import Origin, Provenance
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.modelstore.updates.download import Told, fetch
from edge_runtime.modelstore.updates.seen import Release, Seen, SeenFile, Utc, judge_now, synced_utc
from edge_runtime.modelstore.updates.sources import Source
from edge_runtime.modelstore.updates.trust import Offer, Repository, UpdateRefused, root_digest

log = logging.getLogger(__name__)

FOLDER = "updates"  # in the state folder
LOCK = "lock"
LOCK_WAIT_S = 10.0
LOCK_NAP_S = 0.05
MAX_ROOT_BYTES = 64_000


@dataclass(frozen=True, slots=True)
class Look:
    """What a repository says about one model. offer: None where it has none for this site. is_new: not taken yet."""

    offer: Offer | None
    is_new: bool
    expires: datetime
    judged_by: str  # the clock or the floor


class Updates:
    """Signed updates of one box. Use within `locked`."""

    def __init__(self, cfg: EdgeConfig, source: Source, clock: Utc = synced_utc) -> None:
        self._cfg, self._source, self._clock = cfg, source, clock
        self.folder = state_dir(cfg) / FOLDER
        self._seen = SeenFile(self.folder)

    @property
    def where(self) -> str:
        return self._source.where

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While no other program of this box updates. Raises StorageError after LOCK_WAIT_S."""
        try:
            custody_of(self.folder.parent).make_folder(self.folder)
            fd = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as err:
            raise StorageError(f"cannot use {self.folder}: {err.strerror or err}", "become root, or make room") from err
        try:
            custody_of(self.folder.parent).take_open(fd)
            _wait_for(fd, self.folder)
            try:
                yield
            finally:
                self._hand_over()
        finally:
            os.close(fd)

    def _hand_over(self) -> None:
        """What root wrote belongs to the service, which looks for updates too."""
        try:
            custody_of(self.folder.parent).take_tree(self.folder)
        except OSError as err:
            log.warning("updates.owner %s: %s", self.folder, err)

    def look(self, name: str) -> Look:
        """Raises UpdateRefused, SourceError, ConfigError or StorageError; what is seen is noted."""
        seen = self._seen.read()
        now = judge_now(self._clock(), seen.floor)
        root = self._root()
        digest = root_digest(root)
        repository = Repository(self._source, root, self.folder / "metadata" / digest[:16], now)
        versions = repository.refresh()
        seen = self._not_older(seen, digest, versions)
        seen = seen.later(repository.signed_at())
        if now.by == "clock":
            seen = seen.later(now.at)
        self._seen.write(seen)
        offer = repository.offer(name, self._cfg.station.site)
        if offer:
            _refuse_older(offer, seen.releases.get(name))
        is_new = offer is not None and seen.releases.get(name) != Release(offer.release, offer.digest)
        return Look(offer, is_new, repository.expires(), now.by)

    def fetch(
        self, offer: Offer, told: Told = lambda what, done, of: None, should_stop: Callable[[], bool] = lambda: False
    ) -> Path:
        """The file of an offer, whole and compared. Raises SourceError, UpdateRefused or StorageError."""
        return fetch(self._source, offer, self.folder / "download", told, should_stop)

    def land(self, offer: Offer, file: Path, store: ModelStore, by: str) -> Bundle:
        """Into the store, noted as signed. Raises ModelError or StorageError: nothing is there then."""
        came = Provenance(Origin.SIGNED, by, self._source.where, offer.release)
        return store.install(file, came=came, expect=(offer.label, offer.digest))

    def taken(self, offer: Offer) -> None:
        """The release is where it belongs: never an older one from now on. The download is of no more use."""
        self._seen.write(self._seen.read().with_release(offer.name, Release(offer.release, offer.digest)))
        (self.folder / "download" / f"{offer.sha256}.tar").unlink(missing_ok=True)

    def _root(self) -> bytes:
        path = at_home(self._cfg.updates.root)
        fix = "copy the repository's root.json there, by a way you trust; see updates.root"
        try:
            with path.open("rb") as file:
                content = file.read(MAX_ROOT_BYTES + 1)
        except FileNotFoundError as err:
            raise ConfigError(f"this box trusts no update repository yet: there is no {path}", fix) from err
        except OSError as err:
            raise ConfigError(f"{path} cannot be read: {err.strerror or err}", fix) from err
        if len(content) > MAX_ROOT_BYTES:
            raise ConfigError(f"{path} is larger than any root.json ({MAX_ROOT_BYTES} bytes)", fix)
        return content

    def _not_older(self, seen: Seen, repository: str, versions: dict[str, int]) -> Seen:
        """tuf compares with its cache; this also holds where the cache was lost."""
        known = seen.versions if seen.repository == repository else {}
        for role, version in versions.items():
            if version < known.get(role, 0):
                raise UpdateRefused(
                    f"{self._source.where} is older than what this box has seen: {role} {version}, seen {known[role]}",
                    "bring the newest repository", "rollback",
                )  # fmt: skip
        return replace(seen, repository=repository, versions=versions)


def _refuse_older(offer: Offer, known: Release | None) -> None:
    if known is None or offer.release > known.number:
        return
    if offer.release < known.number:
        raise UpdateRefused(
            f"{offer.label} is release {offer.release}, this box has had release {known.number} of {offer.name}",
            "give it a higher number: tools/repo add --release", "rollback",
        )  # fmt: skip
    if offer.digest != known.digest:
        raise UpdateRefused(
            f"{offer.label} is another bundle than the release {offer.release} that this box has had",
            "give it a number of its own", "rollback",
        )  # fmt: skip


def _wait_for(fd: int, folder: Path) -> None:
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as err:
            if time.monotonic() >= until:
                raise StorageError(
                    f"another update holds {folder} for {LOCK_WAIT_S:.0f} s",
                    "let it end (fuser -v names it), ask again",
                ) from err
            time.sleep(LOCK_NAP_S)


def model_wanted(cfg: EdgeConfig, given: str = "") -> str:
    """The name of the model that is updated: as given, else the one that the station runs. Raises ModelError."""
    name = (given or cfg.model.name).partition("@")[0]
    if not name or "/" in name:
        raise ModelError(f"{given!r} is no name of a model", "name one, such as scratch")
    return name
