"""One model bundle: a folder (or `.tar`) with `manifest.toml` and exactly the files that it lists.

    manifest.toml   what the model is, what it eats and says, thresholds, and the SHA-256 of every other file
    model.tflite    the network; for kind `anomaly` the frozen backbone
    memory.npz      kinds `anomaly`, `sound_anomaly`: what was learnt from good parts, or normal sound
    labels.txt      one label a line, the same as `output.labels`
    CARD.md         what it was made from, what it is good and bad at
    golden/         pictures and the predictions that were made of them

A digest is the only defence against a flipped bit: 93-95 % of single bit flips in a model load and run unnoticed. So
nothing is opened before it was compared, and a file that the manifest does not list is a reason to refuse the bundle.
Archives are plain tar: without compression and sparse files an archive cannot grow past its own size.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.core.errors import ModelError
from edge_runtime.core.files import write_atomic
from edge_runtime.core.manifest import Kind, Manifest
from edge_runtime.modelstore.manifest_toml import manifest_toml, parse_manifest, read_manifest

MANIFEST = "manifest.toml"
MODEL = "model.tflite"
MEMORY = "memory.npz"
LABELS = "labels.txt"
CARD = "CARD.md"

MAX_FILES = 2000
MAX_BUNDLE_BYTES = 512 << 20  # the largest vision model meant for such a box is some 30 MB
MAX_DEPTH = 4

_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were all compared with their digests (unless it was opened with `verify=False`)."""

    folder: Path
    manifest: Manifest
    digest: str  # SHA-256 of manifest.toml, and so of everything it lists: the identity of this model

    @property
    def label(self) -> str:
        return self.manifest.label

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL


def load_bundle(folder: str | Path, verify: bool = True) -> Bundle:
    """Open a bundle folder. Raises ModelError when anything is missing, altered, unlisted or not a plain file.

    verify=False skips the digests of large files (for listings); structure is always checked.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such bundle folder")
    manifest = read_manifest(folder / MANIFEST)
    _check_claims(folder, manifest)
    found = dict(_walk(folder))
    found.pop(MANIFEST, None)
    missing = sorted(set(manifest.files) - set(found))
    if missing:
        raise ModelError(f"{folder}: {_names(missing)} listed in manifest.toml but missing")
    unlisted = sorted(set(found) - set(manifest.files))
    if unlisted:
        raise ModelError(
            f"{folder}: {_names(unlisted)} not listed in manifest.toml", "remove what does not belong here"
        )
    if verify:
        for name, digest in manifest.files.items():
            if file_digest(found[name]) != digest:
                raise ModelError(f"{folder}: {name} was altered, its SHA-256 is not the one in manifest.toml")
        _check_labels(folder, manifest)
    return Bundle(folder, manifest, file_digest(folder / MANIFEST))


def seal_bundle(folder: str | Path, manifest: Manifest | Mapping[str, Any]) -> Bundle:
    """Make `folder` a bundle: take the digest of every file in it, write `manifest.toml`, check the result.

    manifest: the manifest, or its table; `files` in it is ignored and computed. `labels.txt` is written when the
    manifest has labels and the folder has none. Call it again after adding files.
    """
    folder = Path(folder)
    table = manifest.model_dump(exclude_none=True) if isinstance(manifest, Manifest) else dict(manifest)
    output = table.get("output")
    if output and not (folder / LABELS).exists():
        labels = output["labels"] if isinstance(output, Mapping) else output.labels
        (folder / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    table["files"] = {name: file_digest(path) for name, path in _walk(folder) if name != MANIFEST}
    sealed = parse_manifest(table, str(folder))
    write_atomic(folder / MANIFEST, manifest_toml(sealed), beside=folder / f".{MANIFEST}.partial")
    return load_bundle(folder)


def pack_bundle(bundle: Bundle, tar_path: str | Path) -> None:
    """Write a bundle as a tar that is the same bytes each time."""
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in (MANIFEST, *sorted(bundle.manifest.files)):
            member = tarfile.TarInfo(name)  # no time, no owner
            with (bundle.folder / name).open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                tar.addfile(member, file)


def unpack_bundle(tar_path: str | Path, into: str | Path) -> Bundle:
    """Unpack a bundle archive into the empty folder `into` and check it. On refusal nothing is left in `into`."""
    tar_path, into = Path(tar_path), Path(into)
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise ModelError(f"{into}: not empty, a bundle is unpacked beside others and never over one")
    try:
        _unpack(tar_path, into)
        return load_bundle(into)
    except (OSError, tarfile.TarError, ValueError, EOFError, RecursionError, OverflowError, MemoryError) as err:
        _empty(into)
        raise ModelError(f"{tar_path}: not a readable bundle archive ({err or type(err).__name__})") from err
    except ModelError:
        _empty(into)
        raise


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelError(f"{path}: cannot be read ({err.strerror or err})") from err


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key in which 10 comes after 9, and numbers before words."""
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts)


def _check_claims(folder: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        _safe_name(name, f"{folder}: manifest.toml lists {name!r}")
    needed = [MODEL, MEMORY] if manifest.kind in (Kind.ANOMALY, Kind.SOUND_ANOMALY) else [MODEL]
    missing = [name for name in needed if name not in manifest.files]
    if missing:
        raise ModelError(f"{folder}: a bundle of kind {manifest.kind} needs {_names(missing)}, not in manifest.toml")
    if MANIFEST in manifest.files:
        raise ModelError(f"{folder}: manifest.toml lists itself")
    if version_key(manifest.min_runtime) > version_key(__version__):
        raise ModelError(
            f"{folder}: {manifest.label} needs edge-runtime {manifest.min_runtime}, this is {__version__}", "update"
        )


def _check_labels(folder: Path, manifest: Manifest) -> None:
    """labels.txt is for people and other tools; it must not say something else than the manifest."""
    if manifest.output is None or LABELS not in manifest.files:
        return
    said = manifest.output.labels
    lines = tuple((folder / LABELS).read_text(encoding="utf-8-sig", errors="replace").removesuffix("\n").split("\n"))
    if lines != said:
        raise ModelError(f"{folder}: labels.txt has {len(lines)} labels, not the {len(said)} of output.labels")


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file under the folder as (name with slashes, path). Raises ModelError on anything that is not plain."""
    total = count = 0
    for base, folders, files in os.walk(folder, followlinks=False):
        for entry in (*folders, *files):
            path = Path(base, entry)
            name = path.relative_to(folder).as_posix()
            mode = path.lstat()
            is_folder = stat.S_ISDIR(mode.st_mode)
            if not is_folder and not stat.S_ISREG(mode.st_mode):
                raise ModelError(f"{folder}: {name} is a link or a device, a bundle holds plain files only")
            _safe_name(name, f"{folder}: {name!r}")
            if is_folder:
                continue
            total, count = total + mode.st_size, count + 1
            if count > MAX_FILES or total > MAX_BUNDLE_BYTES:
                raise ModelError(f"{folder}: more than {MAX_FILES} files or {MAX_BUNDLE_BYTES >> 20} MB, refused")
            yield name, path


def _safe_name(name: str, what: str) -> None:
    parts = name.split("/")
    if len(parts) > MAX_DEPTH or not all(_SAFE_PART.fullmatch(part) for part in parts):
        raise ModelError(
            f"{what}: not an allowed name in a bundle (relative, letters, digits and ._+-, at most {MAX_DEPTH} levels)"
        )


def _unpack(tar_path: Path, into: Path) -> None:
    size = tar_path.stat().st_size
    if size > MAX_BUNDLE_BYTES + (MAX_FILES << 11):
        raise ModelError(f"{tar_path}: {size >> 20} MB, a bundle has at most {MAX_BUNDLE_BYTES >> 20} MB")
    seen: set[str] = set()
    total = 0
    with tarfile.open(tar_path, "r:") as tar:  # plain tar only, see the module's docstring
        while (member := tar.next()) is not None:
            name = member.name.removeprefix("./")
            if name in (".", "") and member.isdir():
                continue
            where = f"{tar_path}: {member.name!r}"
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise ModelError(f"{where} points outside the bundle, refused")
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.issparse():
                raise ModelError(f"{where} is a link, a device or a sparse file; a bundle holds plain files only")
            _safe_name(name.removesuffix("/"), where)
            if name.casefold() in seen:
                raise ModelError(f"{where} comes twice, refused")
            seen.add(name.casefold())
            total += max(member.size, 0)
            if len(seen) > MAX_FILES or total > MAX_BUNDLE_BYTES:
                raise ModelError(f"{tar_path}: more than {MAX_FILES} files or {MAX_BUNDLE_BYTES >> 20} MB, refused")
            _write_member(tar, member, into / name)
    if MANIFEST not in seen:
        raise ModelError(f"{tar_path}: no manifest.toml at the top", "pack with `tar -C FOLDER -cf BUNDLE.tar .`")


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:
        raise ModelError(f"{member.name!r} has no content")
    with source, path.open("xb") as target:  # "x": two members can never meet in one file
        shutil.copyfileobj(source, target, 1 << 20)
    if path.stat().st_size != member.size:
        raise ModelError(f"{member.name!r} ends early, the archive is cut off")


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
