"""Which models can be asked: the bundles of the store, and the bare files of `serve.files`. Nothing is opened here.

What reads bundles is imported when somebody first asks for a model: a box whose API nobody uses has 20 MB more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import EdgeError
from edge_runtime.serve.access.refusal import Refusal

if TYPE_CHECKING:
    from edge_runtime.modelstore.store import ModelStore, Stored

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FILE_VERSION = "1"
MOST_FILES = 1000
HOLDS_NS = SECOND  # how late a model that was installed or promoted is seen


@dataclass(frozen=True, slots=True)
class Known:
    """One model that can be asked. path: a bundle's folder, or a bare file."""

    name: str
    version: str
    path: Path
    is_bundle: bool

    file: Path  # its network
    seal: Path  # what changes when something else is put in its place

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def size(self) -> int:
        """Bytes of its network; 0 where it cannot be told."""
        try:
            return self.file.stat().st_size
        except OSError:
            return 0

    def identity(self) -> object:
        """Other once something else lies in its place."""
        try:
            about = self.seal.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size


class Catalog:
    """Reads folders: not for the event loop's thread, but for `lookup`."""

    def __init__(self, cfg: EdgeConfig, clock: Clock = monotonic_ns) -> None:
        self._clock = clock
        self._found: dict[tuple[str, str], tuple[int, Known]] = {}
        self._cfg = cfg
        self._files = Path(cfg.serve.files).expanduser() if cfg.serve.files else None
        self._stations = cfg.model.name

    @cached_property
    def _store(self) -> ModelStore:
        from edge_runtime.modelstore.store import open_store

        return open_store(self._cfg)

    def all(self) -> list[Known]:
        """By name, newest version first. Raises EdgeError when the store cannot be read."""
        found = [_bundle(one) for one in self._store.list()]
        names = {one.name for one in found}
        return found + [one for one in self._bare() if one.name not in names]

    async def lookup(self, name: str, version: str = "") -> Known:
        """As `find`, for the event loop: what was found holds for a moment, because the store is read for each."""
        key = (name, version)
        at_ns, known = self._found.get(key, (0, None))
        if known is None or self._clock() - at_ns > HOLDS_NS:
            known = await asyncio.to_thread(self.find, name, version)
            self._found = {one: found for one, found in self._found.items() if self._clock() - found[0] < HOLDS_NS}
            self._found[key] = (self._clock(), known)
        return known

    def versions(self, name: str) -> list[Known]:
        return [one for one in self.all() if one.name == name]

    def find(self, name: str, version: str = "") -> Known:
        """Without a version the one that a station of this name would run. Raises Refusal (404)."""
        there = self.versions(name)
        if not there:
            raise Refusal(404, f"there is no model {name[:64]!r}; POST v2/repository/index lists them")
        if version:
            found = [one for one in there if one.version == version]
            if not found:
                versions = ", ".join(one.version for one in there)
                raise Refusal(404, f"model {name!r} has no version {version[:64]!r}; there is {versions}")
            return found[0]
        return self._running(name, there)

    @property
    def stations(self) -> str:
        """The model that the station file names, NAME or NAME@VERSION."""
        return self._stations

    def _running(self, name: str, there: Sequence[Known]) -> Known:
        from edge_runtime.predictors.model_choice import would_run

        if there[0].is_bundle:
            try:
                wanted = would_run(name, self._store)
            except EdgeError:  # slots that cannot be read, or what they name is gone: the line says so, not this page
                return there[0]
            return _bundle(wanted)
        return there[0]

    def _bare(self) -> list[Known]:
        if self._files is None:
            return []
        try:
            found = sorted(path for path in self._files.iterdir() if path.suffix == ".tflite" and path.is_file())
        except OSError:
            return []
        return [
            Known(path.stem, FILE_VERSION, path, False, path, path)
            for path in found[:MOST_FILES]
            if _FILE_NAME.fullmatch(path.stem)
        ]


def _bundle(stored: Stored) -> Known:
    from edge_runtime.modelstore.bundle import MANIFEST, MODEL

    folder = stored.folder
    return Known(stored.name, stored.version, folder, True, folder / MODEL, folder / MANIFEST)
