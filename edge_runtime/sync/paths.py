"""Where the uplink's own files are, and how the running one is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.config.paths import state_dir

if TYPE_CHECKING:
    from edge_runtime.config.schema import EdgeConfig

SOCKET = "sync.sock"  # in the state folder: it outlives the runtime folder of either service
BOOK = "commands.db"
BD_SEQ = "sparkplug_bd_seq"
CREDENTIALS = "/etc/edge-runtime/credentials"  # LoadCredential= of the unit
MISSING = b"missing"  # SetCredential= of the unit
NEEDS = "the uplink needs more packages"
INSTALL = "pip install 'edge-runtime[sync]'"


def sync_socket(cfg: EdgeConfig) -> Path:
    return state_dir(cfg) / SOCKET


def command_book(cfg: EdgeConfig) -> Path:
    return state_dir(cfg) / BOOK


def ask_sync(cfg: EdgeConfig, do: str, timeout_s: float = 5.0, **words: Any) -> Any:
    """Raises DeviceError when no uplink runs here, or it refuses."""
    from edge_runtime.process.control import NobodyThere, ask

    path = sync_socket(cfg)
    try:
        return ask(path, do, timeout_s, **words)
    except NobodyThere as err:
        raise NobodyThere(f"no uplink runs here (no answer on {path})", "start it with: edge-runtime sync") from err
