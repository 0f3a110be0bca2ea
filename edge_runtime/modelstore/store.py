"""Where bundles are kept: folders of `<name>/<version>/`, the box's own first, then those shipped with the product.

Installing never overwrites: a bundle is copied beside the others under a hidden name, flushed to disk, checked once
more and renamed into place, so that a power cut leaves either the whole bundle or nothing that anyone would open.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import edge_runtime
from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.custody import custody_of, rights_fix
from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.core.files import sync
from edge_runtime.modelstore.bundle import (
    MANIFEST,
    Bundle,
    file_digest,
    load_bundle,
    unpack_bundle,
    version_key,
)
from edge_runtime.modelstore.provenance import SHIPPED, UNSIGNED, Origin, Provenance, ProvenanceNotes

log = logging.getLogger(__name__)

_PARTIAL = ".partial-"
_WORKSHOP = ".making-"
ROOM_BYTES = 32 << 20  # for a bundle while it is made and installed; taught ones have 2 to 12 MB


def shipped_models() -> Path | None:
    """The folder of bundles that comes with the product, or None: inside the package when installed from a wheel,
    `models/` beside it in a checkout."""
    package = Path(edge_runtime.__file__).parent
    candidates = (package / "shipped_models", package.parent / "models")
    return next((folder for folder in candidates if any(folder.glob(f"*/*/{MANIFEST}"))), None)


@dataclass(frozen=True, slots=True)
class Stored:
    """One bundle's place. Nothing of it was opened yet."""

    name: str
    version: str
    folder: Path
    is_shipped: bool

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class ModelStore:
    """Bundles by name.

    own: the folder that can be written, made when something is installed. shipped: read-only folders, looked at after
    it; a bundle of the same name and version in `own` wins. require_signature: bundles that somebody brought as a file
    are neither installed nor staged.
    """

    def __init__(
        self, own: str | Path, shipped: Sequence[str | Path] | None = None, *, require_signature: bool = False
    ) -> None:
        self.own = Path(own)
        self.notes = ProvenanceNotes(self.own)
        self._require_signature = require_signature
        if shipped is None:
            found = shipped_models()
            shipped = [found] if found else []
        self._folders = [self.own, *(Path(folder) for folder in shipped)]

    def list(self) -> list[Stored]:
        """Every bundle, by name and then newest version first. Raises StorageError when the own ones may not be read:
        a box that cannot see its models must not take the shipped ones for all there are."""
        seen: dict[tuple[str, str], Stored] = {}
        for stored in self._all():
            seen.setdefault((stored.name, stored.version), stored)
        newest_first = sorted(seen.values(), key=lambda stored: version_key(stored.version), reverse=True)
        return sorted(newest_first, key=lambda stored: stored.name)

    def newest_shipped(self, name: str) -> Stored | None:
        """What the product brings of this name, whatever was installed over it."""
        shipped = [stored for stored in self._all() if stored.is_shipped and stored.name == name]
        return max(shipped, key=lambda stored: version_key(stored.version), default=None)

    def open_exactly(self, name: str, version: str, digest: str) -> Bundle:
        """Open the very bundle that a slot names, digests compared; an empty digest takes any of that version.

        Raises ModelError when it is gone, altered, or others lie in its place.
        """
        bundle = load_bundle(self.find_exactly(name, version, digest).folder)
        if bundle.label != f"{name}@{version}":
            raise ModelError(
                f"{bundle.folder}: the manifest calls itself {bundle.label}", "move it to where it belongs"
            )
        return bundle

    def find_exactly(self, name: str, version: str, digest: str) -> Stored:
        """Where that bundle is kept; only its manifest is read."""
        there = [stored for stored in self._all() if (stored.name, stored.version) == (name, version)]
        if not there:
            raise ModelError(f"{name}@{version} is not in the store any more", "install it again")
        for stored in there:
            if not digest or file_digest(stored.folder / MANIFEST) == digest:
                return stored
        raise ModelError(f"{name}@{version} is another bundle than the one that was chosen", "stage and promote it")

    def is_shipped(self, bundle: Bundle) -> bool:
        return not bundle.folder.is_relative_to(self.own)

    def provenance(self, bundle: Bundle | Stored) -> Provenance:
        """Where a bundle of this store came from."""
        if not bundle.folder.is_relative_to(self.own):
            return SHIPPED
        digest = bundle.digest if isinstance(bundle, Bundle) else file_digest(bundle.folder / MANIFEST)
        return self.notes.of(digest)

    def refuse_unfit(self, bundle: Bundle) -> None:
        """Raises ModelError for what must not come to work here: in quarantine, or unsigned where that is refused."""
        if why := self.notes.quarantined(bundle.digest):
            raise ModelError(
                f"{bundle.label} is in quarantine: {why}",
                f"take another version; `edge-runtime models verify {bundle.label}` tries it again",
            )
        self._refuse_unsigned(bundle.label, self.provenance(bundle))

    def release(self, digest: str) -> bool:
        """Out of quarantine, because it passed its test. False where it was not in it. Raises StorageError."""
        try:
            return self.notes.release(digest)
        except OSError as err:
            raise StorageError(
                f"cannot take {digest[:12]} out of quarantine: {err.strerror or err}", "become root"
            ) from err

    def _refuse_unsigned(self, label: str, came: Provenance) -> None:
        if self._require_signature and came.origin is Origin.UNSIGNED:
            raise ModelError(
                f"{label} is not signed, and modelstore.require_signature is true",
                "bring it with `edge-runtime models update`, or set modelstore.require_signature = false",
            )

    def _all(self) -> Iterator[Stored]:
        """In order of folders, the own one first; the same label may come twice."""
        for folder in self._folders:
            is_own = folder == self.own
            for name in _folders_in(folder, is_own):
                for version in _folders_in(name, is_own):
                    if _has_manifest(version, is_own):
                        yield Stored(name.name, version.name, version, is_shipped=not is_own)

    def find(self, reference: str) -> Stored:
        """Where `NAME` (its newest version) or `NAME@VERSION` is kept. Raises ModelError with the nearest name."""
        name, _, version = reference.partition("@")
        stored = self.list()
        named = [one for one in stored if one.name == name]
        if not named:
            raise ModelError(f"no model {name!r}{_nearest(name, sorted({one.name for one in stored}))}")
        if not version:
            return named[0]
        for one in named:
            if one.version == version:
                return one
        versions = [one.version for one in named]
        raise ModelError(f"model {name!r} has no version {version!r}{_nearest(version, versions)}")

    def resolve(self, reference: str, verify: bool = True) -> Bundle:
        """Open `NAME` or `NAME@VERSION`, digests compared."""
        stored = self.find(reference)
        bundle = load_bundle(stored.folder, verify)
        if bundle.label != stored.label:
            raise ModelError(
                f"{stored.folder}: the manifest calls itself {bundle.label}", "move it to where it belongs"
            )
        return bundle

    def install(
        self,
        source: Bundle | str | Path,
        replace: bool = False,
        came: Provenance = UNSIGNED,
        expect: tuple[str, str] | None = None,
    ) -> Bundle:
        """Copy a bundle (opened, a folder, or a .tar) into the box's own folder. Atomic and durable.

        replace: take the place of a bundle of the same name and version; otherwise that is refused, unless it is the
        very same bundle. came: where it is from; noted before it is there, so that no power cut leaves a signed bundle
        that counts as unsigned. expect: label and digest that it must have. Raises ModelError, or StorageError when the
        folder cannot be written.
        """
        partial = self.own / f"{_PARTIAL}{os.getpid()}"
        try:
            custody = custody_of(self.own)
            custody.make_folder(self.own)
            self._sweep()
            bundle = _copy(source, partial)
            if expect and (bundle.label, bundle.digest) != expect:
                raise ModelError(f"{bundle.label} is another bundle than {expect[0]}, which was expected")
            known = self.notes.of(bundle.digest)
            self._refuse_unsigned(bundle.label, known if came.origin is Origin.UNSIGNED else came)
            custody.take_tree(partial)
            if came != UNSIGNED:
                self.notes.note(bundle.digest, came)
            target = self.own / bundle.manifest.name / bundle.manifest.version
            if (target / MANIFEST).exists() and not replace:
                return self._same_or_refuse(bundle, target)
            _sync_tree(partial)
            custody.make_folder(target.parent)
            if target.exists():
                _swap_out(target)
            partial.rename(target)
            sync(target.parent)
            sync(self.own)
            custody.mend(self.own)
        except OSError as err:
            raise StorageError(f"cannot install into {self.own}: {err.strerror or err}") from err
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        log.info("model installed model=%s digest=%s folder=%s", bundle.label, bundle.digest[:12], target)
        return load_bundle(target)

    @contextlib.contextmanager
    def workshop(self) -> Iterator[Path]:
        """A folder beside the bundles in which one is made: not in /tmp, which may be memory. Gone afterwards.

        Raises StorageError when it cannot be had, or there is no room for a bundle: before hours of work, not after.
        """
        try:
            custody_of(self.own).make_folder(self.own)
            self._sweep()
            free = shutil.disk_usage(self.own).free
            if free < ROOM_BYTES:
                raise StorageError(
                    f"{self.own} has {free / 1e6:.0f} MB left, {ROOM_BYTES / 1e6:.0f} are needed to make a model; "
                    "free some, or set model.store"
                )
            folder = tempfile.TemporaryDirectory(prefix=f"{_WORKSHOP}{os.getpid()}-", dir=self.own)
        except OSError as err:
            raise StorageError(f"cannot make a model in {self.own}: {err.strerror or err}; set model.store") from err
        with folder as path:
            yield Path(path)

    def remove(self, reference: str) -> Path:
        """Delete a bundle from the box's own folder."""
        stored = self.find(reference)
        if stored.is_shipped:
            raise ModelError(f"{stored.label} came with the product and cannot be removed")
        try:
            _swap_out(stored.folder)
        except OSError as err:
            raise StorageError(f"cannot remove {stored.folder}: {err.strerror or err}") from err
        return stored.folder

    def _sweep(self) -> None:
        """Delete what was left by those whom a power cut ended."""
        for left in self.own.glob(f"{_WORKSHOP}*"):
            if not Path("/proc", left.name.removeprefix(_WORKSHOP).partition("-")[0]).exists():
                shutil.rmtree(left, ignore_errors=True)
        for left in self.own.glob(f"{_PARTIAL}*"):
            pid = left.name.removeprefix(_PARTIAL)
            if pid == str(os.getpid()) or not Path("/proc", pid).exists():
                shutil.rmtree(left, ignore_errors=True)

    def _same_or_refuse(self, bundle: Bundle, target: Path) -> Bundle:
        existing = load_bundle(target)
        if existing.digest != bundle.digest:
            raise ModelError(f"{bundle.label} is installed already with other content", "give it a new version")
        return existing


def _folders_in(folder: Path, is_own: bool) -> Sequence[Path]:
    """Its folders that are not hidden. Raises StorageError for one of the box's own that may not be read."""
    try:
        return sorted([Path(one) for one in os.scandir(folder) if one.is_dir() and not one.name.startswith(".")])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except PermissionError as err:
        if not is_own:
            return ()
        raise _unreadable(folder) from err


def _has_manifest(folder: Path, is_own: bool) -> bool:
    try:
        (folder / MANIFEST).stat()
    except PermissionError as err:
        if is_own:
            raise _unreadable(folder) from err
        return False
    except OSError:
        return False
    return True


def _unreadable(folder: Path) -> StorageError:
    return StorageError(f"may not read the models in {folder}", rights_fix(folder, to_write=False))


def open_bundle(reference: str, store: ModelStore) -> Bundle:
    """A bundle by NAME, NAME@VERSION or the path of its folder."""
    path = Path(reference)
    if "/" in reference or (path / MANIFEST).is_file():
        return load_bundle(path)
    return store.resolve(reference)


def _copy(source: Bundle | str | Path, into: Path) -> Bundle:
    if not isinstance(source, Bundle) and Path(source).is_file():
        return unpack_bundle(source, into)
    bundle = source if isinstance(source, Bundle) else load_bundle(source)
    shutil.copytree(bundle.folder, into, symlinks=True)
    return load_bundle(into)


def _swap_out(folder: Path) -> None:
    """Take a folder away by one rename, then delete it: nobody sees half of it."""
    aside = folder.parent / f".removed-{folder.name}-{os.getpid()}"
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for base, _, files in os.walk(folder):
        for name in files:
            sync(Path(base, name))
        sync(Path(base))


def _nearest(wanted: str, known: Sequence[str]) -> str:
    if not known:
        return "; no models are installed"
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"


def open_store(cfg: EdgeConfig) -> ModelStore:
    """The models of this box: its own folder first, then the shipped ones."""
    own = Path(cfg.model.store).expanduser() if cfg.model.store else state_dir(cfg) / "models"
    return ModelStore(own, require_signature=cfg.modelstore.require_signature)
