"""The compiled core of the controller's firmware, loaded into this process.

Found in this order: `$EDGE_REJECT_CORE` (another build of it: instrumented, mutated), the library beside the sources
(as a wheel carries it), the cache folder, where it is built once. Its name tells of which sources it is made.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import POINTER, Structure, c_char_p, c_uint32, c_void_p
from pathlib import Path

from firmware_bridge.mcu.build import HERE, BuildError, ToolMissing, build_host, library_name
from firmware_bridge.reject.messages import PROTOCOL_VERSION

ENV = "EDGE_REJECT_CORE"
FIX = "apt-get install gcc libc6-dev"

_lock = threading.Lock()
_loaded: dict[Path, ctypes.CDLL] = {}


class CoreError(Exception):
    """The core is not there, or is another one. The text is one sentence, and names the fix."""


def _row(*names: str) -> list[tuple[str, type[c_uint32]]]:
    return [(name, c_uint32) for name in names]


class Edge(Structure):
    _fields_ = _row("is_on", "part_id", "encoder", "time_us")


class Event(Structure):
    _fields_ = _row("seq", "kind", "part_id", "encoder", "time_us")


class News(Structure):
    _fields_ = _row("byte_count", "edge_count", "event_count", "lost", "flags", "is_healthy", "next_part",
                    "next_encoder", "has_next_encoder", "is_held")  # fmt: skip


class Values(Structure):
    """A configuration."""

    _fields_ = _row("decide_counts", "fire_counts", "pulse_counts", "confirm_counts", "watchdog_ms", "max_on_ms",
                    "default", "debounce_counts", "inputs")  # fmt: skip


class Start(Structure):
    _fields_ = [
        *_row("boot_id", "now_us", "encoder", "next_part", "next_event", "modbus_unit", "baud", "has_saved"),
        ("saved", Values),
    ]


class About(Structure):
    _fields_ = _row("protocol_version", "part_slots", "event_slots", "event_window", "host_size")


class Tallies(Structure):
    _fields_ = _row("overwritten", "overflows", "trips", "bounces", "not_ours", "resends", "dropped", "frames",
                    "bad_crc", "malformed", "oversize")  # fmt: skip


def load(path: Path | None = None) -> ctypes.CDLL:
    """The library, once per process and path. Raises CoreError."""
    with _lock:
        path = (path or _find()).resolve()
        if path not in _loaded:
            _loaded[path] = _open(path)
        return _loaded[path]


def about(library: ctypes.CDLL) -> About:
    told = About()
    library.host_about(ctypes.byref(told))
    return told


def _find() -> Path:
    if given := os.environ.get(ENV):
        return Path(given)
    name = library_name()
    if (HERE / name).exists():
        return HERE / name
    cached = _cache_folder() / name
    try:
        return cached if cached.exists() else build_host(cached)
    except ToolMissing as err:
        raise CoreError(f"the controller's core is not compiled here, and there is no C compiler: {FIX}") from err
    except BuildError as err:
        raise CoreError(f"the controller's core cannot be compiled: {FIX}; the compiler says: {_gist(err)}") from err
    except OSError as err:
        raise CoreError(
            f"the compiled core of the controller cannot be put into {cached.parent}: {err.strerror or err}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from err


def _gist(err: BuildError) -> str:
    """The line of a compiler's page that names the fault."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[-1] if lines else "nothing")


def _cache_folder() -> Path:
    try:
        root = os.environ.get("XDG_CACHE_HOME")
        return (Path(root) if root else Path.home() / ".cache") / "edge-runtime"
    except RuntimeError as err:
        raise CoreError("this user has no home to keep the controller's compiled core in: set XDG_CACHE_HOME") from err


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, AttributeError) as err:
        raise CoreError(f"cannot load {path}: {err}; delete it, it is built anew") from err
    told = about(library)
    if told.protocol_version != PROTOCOL_VERSION:
        raise CoreError(
            f"{path} speaks protocol {told.protocol_version:04x}, this release {PROTOCOL_VERSION:04x}: run "
            "`python -m firmware_bridge.mcu.generate` in a checkout, then delete the library, it is built anew"
        )
    return library


def _declare(library: ctypes.CDLL) -> None:
    host, number = c_void_p, c_uint32
    for name, *arguments in (
        ("host_about", POINTER(About)),
        ("host_places", host, POINTER(c_void_p)),
        ("host_init", host, POINTER(Start)),
        ("host_on_bytes", host, c_char_p, number, number),
        ("host_on_eye", host, number, number),
        ("host_on_encoder", host, number, number),
        ("host_on_confirm", host, number, number),
        ("host_on_inputs", host, number, number),
        ("host_on_time", host, number),
        ("host_tallies", host, POINTER(Tallies)),
        ("host_plan", host, POINTER(number)),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    for name, *answered in (
        ("host_config", POINTER(Values)),
        ("host_map_read", number, number, c_char_p),
        ("host_map_write", number, number, c_char_p, number),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = [host, *answered], number
