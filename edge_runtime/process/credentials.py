"""Where certificates, keys and passwords lie: named in the station file, handed over by systemd."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_runtime.config.paths import at_home


def credential(name: str, env: Mapping[str, str]) -> str:
    """A bare file name lies where systemd's LoadCredential puts it; a path is a path, from the home folder with `~`."""
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    return str(Path(folder) / name) if name and folder and "/" not in name else str(at_home(name)) if name else name
