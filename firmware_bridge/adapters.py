"""Which serial ports this machine has, under which lasting names, who uses them, and whether they answer at once.

Read from /sys, /dev and /proc alone, so that looking disturbs nobody: a port that is opened may pulse DTR, which resets
many controller boards.

FTDI adapters hold received bytes back for 16 ms by default ("latency timer"); `BridgePort` asks for 1 ms, and here is
read what they do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYS_TTY, BY_ID = Path("/sys/class/tty"), Path("/dev/serial/by-id")
SLOW_MS = 2  # a latency timer above this eats a tenth of the verdict's time on the wire


@dataclass(frozen=True, slots=True)
class Adapter:
    """One serial port."""

    path: str  # /dev/ttyUSB0
    by_id: str  # lasting name under /dev/serial/by-id, or empty
    driver: str  # of the kernel: ftdi_sio, cdc_acm, uart-pl011, ...
    product: str  # as the device calls itself, or empty
    latency_ms: int | None  # the adapter's latency timer; None where it has none
    is_permitted: bool  # this user may open it
    used_by: str  # "4711 edge-runtime" for a process that has it open, as far as this user may see; or empty

    @property
    def best_name(self) -> str:
        """What belongs into the station file: it stays when the adapter comes back elsewhere."""
        return self.by_id or self.path


def list_adapters(sys_tty: Path = SYS_TTY, by_id: Path = BY_ID) -> list[Adapter]:
    """Every port with hardware behind it, by name."""
    lasting = _lasting_names(by_id)
    found = []
    for entry in sorted(sys_tty.glob("tty*")) if sys_tty.is_dir() else []:
        device = entry / "device"
        driver = (device / "driver").resolve().name if (device / "driver").exists() else ""
        if not device.exists() or not driver or _is_empty_socket(entry):
            continue
        path = f"/dev/{entry.name}"
        found.append(
            Adapter(
                path=path,
                by_id=lasting.get(path, ""),
                driver=driver,
                product=_product(device),
                latency_ms=latency_ms(path, sys_tty),
                is_permitted=os.access(path, os.R_OK | os.W_OK),
                used_by=user_of(path),
            )
        )
    return found


def latency_ms(path: str, sys_tty: Path = SYS_TTY) -> int | None:
    """The latency timer of the adapter behind a port. None where it has none, or is no adapter."""
    name = Path(path).resolve().name
    try:
        return int((sys_tty / name / "device" / "latency_timer").read_text())
    except (OSError, ValueError):
        return None


def user_of(path: str, proc: Path = Path("/proc")) -> str:
    """`PID NAME` of another process that has the port open; empty when none is seen. Needs root to see all."""
    target = str(Path(path).resolve())
    for process in proc.glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if any(str(fd.readlink()) == target for fd in (process / "fd").iterdir()):
                return f"{process.name} {(process / 'comm').read_text().strip()}"
        except OSError:  # it ended, or is another user's
            continue
    return ""


def _lasting_names(by_id: Path) -> dict[str, str]:
    """Device -> name under by-id."""
    try:
        return {str(link.resolve()): str(link) for link in sorted(by_id.iterdir())}
    except OSError:
        return {}


def _is_empty_socket(entry: Path) -> bool:
    """The 8250 driver announces ports that a board does not have: type 0 is PORT_UNKNOWN (linux/serial_core.h)."""
    try:
        return (entry / "type").read_text().strip() == "0"
    except OSError:
        return False


def _product(device: Path) -> str:
    """The USB device's own words, some folders above the port."""
    for folder in list(device.resolve().parents)[:4]:
        try:
            return (folder / "product").read_text().strip()
        except OSError:
            continue
    return ""
