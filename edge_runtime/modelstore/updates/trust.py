"""What a repository is worth: its metadata followed from the trusted root, by python-tuf.

    root -> timestamp -> snapshot -> targets -> site-NAME

Roots are rotated along their chain of signatures. Each file is bounded in size, signed by as many keys as its role
wants, not older than what was seen, and not expired at the time that `seen.py` judges. Only then a target's length and
SHA-256 are known, and only what has them is opened.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge_runtime.core.errors import ConfigError, EdgeError, ModelError, StorageError
from edge_runtime.modelstore.bundle import MAX_BUNDLE_BYTES
from edge_runtime.modelstore.updates.seen import Now
from edge_runtime.modelstore.updates.sources import Interrupted, NotThere, Source

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 3  # for each metadata file: a link that drops one connection in three still works 96 times of 100
LIMITS = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=8,
    root_max_length=64_000,  # 4 kB with 5 keys
    timestamp_max_length=16_000,
    snapshot_max_length=256_000,  # 60 B a site
    targets_max_length=1_000_000,  # 500 B a model
)
EVERYWHERE = "all"  # the folder of targets that are for each site


class UpdateRefused(ModelError):
    """A repository or a bundle of it is not to be trusted, or too old. cause: one word for machines."""

    def __init__(self, what: str, fix: str = "", cause: str = "refused") -> None:
        super().__init__(what, fix)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Offer:
    """The release of a model that a repository holds for a site, as signed. digest: of the bundle's manifest."""

    name: str
    version: str
    release: int
    digest: str
    length: int
    sha256: str
    path: str  # of the file in the repository

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class Repository:
    """A repository, believed from its trusted root on. cache: a folder of its own for accepted metadata."""

    def __init__(self, source: Source, root: bytes, cache: Path, now: Now) -> None:
        self._source, self._root, self._cache, self._now = source, root, cache, now
        self._client: _Client | None = None

    def refresh(self) -> dict[str, int]:
        """Follow the metadata to its end; versions by role. Raises UpdateRefused, SourceError or StorageError."""
        return self._with_a_good_cache(self._refresh)

    def _with_a_good_cache(self, work: Callable[[], T]) -> T:
        """A cache that cannot be used is thrown away, once: the trusted root and `seen.json` are what counts."""
        try:
            return work()
        except (OSError, RecursionError) as err:
            log.warning("updates.cache_damaged %s is made anew (%s)", self._cache, err)
            _remove(self._cache)
        try:
            self._refresh()
            return work()
        except OSError as err:
            raise StorageError(f"cannot keep metadata in {self._cache}: {err.strerror or err}", "make room") from err

    def _refresh(self) -> dict[str, int]:
        self._cache.mkdir(parents=True, exist_ok=True)
        for left in self._cache.glob("tmp*"):  # of one that was killed while it wrote
            left.unlink(missing_ok=True)
        try:
            self._client = _Client(self._source, self._root, self._cache, self._now.at)
        except _TUF as err:
            raise ConfigError(
                f"updates.root is no root.json of an update repository: {_short(err)}",
                "copy the one that tools/repo made",
            ) from err
        try:
            self._client.refresh()
        except _TUF as err:
            raise self._told(err) from err
        return self._client.versions()

    def signed_at(self) -> datetime | None:
        """When the timestamp was signed, as its signer says; it cannot be earlier now."""
        made = self._ready().extra("made")
        try:
            moment = datetime.fromisoformat(str(made))
        except ValueError:
            return None
        return moment if moment.tzinfo else None

    def expires(self) -> datetime:
        return self._ready().expires()

    def offer(self, name: str, site: str) -> Offer | None:
        """The release of that model for that site, else for every site. Raises as `refresh` does."""
        return self._with_a_good_cache(lambda: self._offer(name, site))

    def _offer(self, name: str, site: str) -> Offer | None:
        for folder in (site, EVERYWHERE):
            try:
                target = self._ready().get_targetinfo(f"{folder}/{name}.tar")
            except _TUF as err:
                raise self._told(err) from err
            if target is not None:
                return _offer(target, name, self._source.where)
        return None

    def _ready(self) -> _Client:
        if self._client is None:
            raise RuntimeError("refresh comes first")
        return self._client

    def _told(self, err: Exception) -> EdgeError:
        where = self._source.where
        if isinstance(err, ExpiredMetadataError):
            return UpdateRefused(
                f"{where}: {_short(err)}; it is {self._now}",
                "have it signed anew (tools/repo refresh) and bring the new one; what runs goes on running",
                "expired",
            )
        if isinstance(err, UnsignedMetadataError):
            return UpdateRefused(
                f"{where} is not signed by those whom this box trusts: {_short(err)}",
                "ask who made it, or give the box the root.json of this repository as updates.root",
                "not_signed",
            )
        if isinstance(err, BadVersionNumberError):
            return UpdateRefused(
                f"{where} is older than what this box has seen: {_short(err)}",
                "bring the newest repository",
                "rollback",
            )
        if isinstance(err, DownloadLengthMismatchError | LengthOrHashMismatchError):
            return UpdateRefused(f"{where} was altered: {_short(err)}", "copy or publish it again, whole", "altered")
        return UpdateRefused(f"{where} is not a whole repository: {_short(err)}", "copy or publish it again", "damaged")


class _Client(Updater):
    """tuf's client with our time and our way of fetching."""

    def __init__(self, source: Source, root: bytes, cache: Path, now: datetime) -> None:
        super().__init__(str(cache), "metadata/", fetcher=_Fetcher(source), config=LIMITS, bootstrap=root)
        # tuf has no seam for the time (its reference time is the wall clock's when it is made)
        self._trusted_set.reference_time = now

    def versions(self) -> dict[str, int]:
        trusted = self._trusted_set
        return {
            part.type: part.version for part in (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
        }

    def extra(self, key: str) -> Any:
        return self._trusted_set.timestamp.unrecognized_fields.get(key)

    def expires(self) -> datetime:
        trusted = self._trusted_set
        return min(part.expires for part in (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets))


class _Fetcher(FetcherInterface):
    """Metadata out of a source, in memory and bounded: tuf's own way goes through /tmp."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Any:
        return self._source.pieces(url, MAX_BUNDLE_BYTES)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._whole(url, max_length)
            except NotThere as err:
                raise DownloadHTTPError(str(err), 404) from err
            except Interrupted as err:
                if attempt == ATTEMPTS:
                    raise
                log.info("updates.retry %s", err)
        raise AssertionError("an attempt returns or raises")

    def _whole(self, url: str, max_length: int) -> bytes:
        content = bytearray()
        for piece in self._source.pieces(url, max_length):
            content += piece
            if len(content) > max_length:
                raise DownloadLengthMismatchError(f"{url} has more than {max_length} bytes")
        return bytes(content)


_TUF = (RepositoryError, DownloadHTTPError, DownloadLengthMismatchError, ValueError, KeyError, TypeError)


def root_digest(root: bytes) -> str:
    return hashlib.sha256(root).hexdigest()


def _offer(target: TargetFile, name: str, where: str) -> Offer:
    custom: Mapping[str, Any] = target.custom or {}
    sha256 = target.hashes.get("sha256", "")
    release, digest, version = custom.get("release"), custom.get("digest"), custom.get("version")
    if (
        type(release) is not int
        or release < 1
        or not isinstance(digest, str)
        or not isinstance(version, str)
        or not sha256
    ):
        raise UpdateRefused(
            f"{where}: {target.path} says no release, version and digests", "make it with tools/repo", "damaged"
        )
    if target.length > MAX_BUNDLE_BYTES:
        raise UpdateRefused(
            f"{where}: {target.path} has {target.length >> 20} MB, at most {MAX_BUNDLE_BYTES >> 20} are taken",
            "",
            "size",
        )
    folder, _, file = target.path.rpartition("/")
    return Offer(name, version, release, digest, target.length, sha256, f"targets/{folder}/{sha256}.{file}")


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def _short(err: Exception) -> str:
    text = " ".join(str(err).split()) or type(err).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
