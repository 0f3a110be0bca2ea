"""Build hook: a wheel that is built where a C compiler is carries the compiled core and is for this platform.

Without a compiler the wheel is pure Python, and the core is built at the first use.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """hatchling finds it by its base class. Of the package it may import only what needs the standard library alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)
        from firmware_bridge.mcu.build import BuildError, build_host, library_name

        self._folder = tempfile.TemporaryDirectory(prefix="edge-core-")
        try:
            library = build_host(Path(self._folder.name) / library_name())
        except BuildError as err:
            self.app.display_warning(f"no compiled core in the wheel: {err}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["force_include"][str(library)] = f"firmware_bridge/mcu/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if (folder := getattr(self, "_folder", None)) is not None:
            folder.cleanup()
