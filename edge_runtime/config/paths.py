"""Where things of one box live. The only place that turns environment and settings into folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.core.errors import ConfigError

if TYPE_CHECKING:
    from edge_runtime.config.schema import EdgeConfig

SYSTEM_CONFIG = Path("/etc/edge-runtime/station.toml")
SYSTEM_STATE = Path("/var/lib/edge-runtime")  # StateDirectory= and RuntimeDirectory= of the unit
SYSTEM_SOCKET = Path("/run/edge-runtime/control.sock")
SOCKET_BYTES = 107  # sun_path of unix(7), without its ending zero
JOURNAL = "journal.db"  # in the state folder
EMBEDDED = "embedded"  # `--config embedded`: the demo station, whatever files there are


def at_home(path: str) -> Path:
    """A path as a person writes it: `~` is the home folder of whoever runs this. Raises ConfigError without one."""
    try:
        return Path(path).expanduser()
    except RuntimeError as err:
        raise ConfigError(f"{path}: {err}", "write the whole path, from / on") from err


def config_file(option: str | None, env: Mapping[str, str] = os.environ) -> Path | None:
    """The station file: the option, else EDGE_RUNTIME_CONFIG, else the system's; None means the embedded station."""
    if option == EMBEDDED:
        return None
    if option or env.get("EDGE_RUNTIME_CONFIG"):
        return at_home(option or env["EDGE_RUNTIME_CONFIG"])
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def with_service_folders(path: Path | None, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The raw station with the folders of the installed service filled in, when it is the service's own station.

    systemd tells the service where they are; an admin who types `edge-runtime status` has no such environment and
    must still find them. Any other file is somebody's own run, which must not touch the service's journal.
    """
    filled = dict(tree)
    if path == SYSTEM_CONFIG:
        for section, key, value in (("recording", "state_dir", SYSTEM_STATE), ("service", "socket", SYSTEM_SOCKET)):
            given = tree.get(section, {})
            if isinstance(given, dict):  # else it is an error, told when the station is checked
                filled[section] = {key: str(value)} | given
    return filled


def locate_state(configured: str, env: Mapping[str, str] = os.environ) -> Path:
    """The state folder: as configured, else systemd's STATE_DIRECTORY, else the user's own (XDG).

    It need not be there yet. Raises ConfigError when a file is in its place.
    """
    base = env.get("XDG_STATE_HOME")
    if configured:
        path = at_home(configured)
    elif env.get("STATE_DIRECTORY"):
        path = Path(env["STATE_DIRECTORY"].split(":")[0])
    else:
        path = (Path(base) if base else Path.home() / ".local" / "state") / "edge-runtime"
    for place in (path, *path.parents):
        if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises where a folder above may not be read
            break
        if os.path.lexists(place):
            where = f"the state folder {path} is" if place == path else f"the state folder {path} would lie in {place},"
            raise ConfigError(f"{where} a file", "name a folder in recording.state_dir, or move the file")
    return path


def locate_socket(configured: str, state: Path, env: Mapping[str, str] = os.environ) -> Path:
    """The control socket: as configured, else in systemd's RUNTIME_DIRECTORY, else in the state folder."""
    if configured:
        return at_home(configured)
    if env.get("RUNTIME_DIRECTORY"):
        return Path(env["RUNTIME_DIRECTORY"].split(":")[0]) / "control.sock"
    return SYSTEM_SOCKET if state == SYSTEM_STATE else state / "control.sock"


def check_folders(cfg: EdgeConfig) -> None:
    """Raises ConfigError where state folder or control socket cannot be what the station says, on any machine."""
    path = socket_path(cfg)
    length = len(os.fsencode(path))
    if length > SOCKET_BYTES:
        raise ConfigError(f"the socket {path} has a name of {length} bytes, at most {SOCKET_BYTES} work: shorten "
                          "service.socket, or recording.state_dir where it is in there")  # fmt: skip


def state_dir(cfg: EdgeConfig) -> Path:
    return locate_state(cfg.recording.state_dir)


def socket_path(cfg: EdgeConfig) -> Path:
    return locate_socket(cfg.service.socket, state_dir(cfg))
