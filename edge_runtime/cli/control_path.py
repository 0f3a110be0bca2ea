"""Where the running box of a station is asked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.config.paths import locate_socket, locate_state, with_service_folders

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


def control_path(session: Session) -> Path:
    """The control socket of the station, without the cost of checking the whole file (no pydantic on this way)."""
    tree: dict[str, Any] = {}
    if session.settings or session.config_path is None:
        if session.settings:
            cfg = session.config
            return locate_socket(cfg.service.socket, locate_state(cfg.recording.state_dir))
    else:
        try:
            tree = with_service_folders(session.config_path, tomllib.loads(session.config_path.read_text()))
        except (OSError, ValueError):
            tree = session.config.model_dump()  # says in a sentence what is wrong with the file
    if not all(isinstance(tree.get(section, {}), dict) for section in ("recording", "service")):
        tree = session.config.model_dump()
    state = locate_state(str(tree.get("recording", {}).get("state_dir", "")))
    return locate_socket(str(tree.get("service", {}).get("socket", "")), state)
