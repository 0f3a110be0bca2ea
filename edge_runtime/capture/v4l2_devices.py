"""Which video devices this box has, from /dev and sysfs alone: opening one would disturb who uses it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys/class/video4linux")
DEV = Path("/dev")


@dataclass(frozen=True, slots=True)
class VideoDevice:
    """One device node. A USB camera has two: index 0 takes pictures, the others only describe them."""

    path: str
    name: str  # as the driver calls it: "HD Pro Webcam C920"
    index: int
    is_readable: bool

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else self.path


def list_devices(dev: Path = DEV, sysfs: Path = SYSFS) -> list[VideoDevice]:
    """Every /dev/video*, those that take pictures first, each kind by number."""
    nodes = [node for node in dev.glob("video*") if re.fullmatch(r"video\d+", node.name)]
    found = [
        VideoDevice(
            path=str(node),
            name=_read(sysfs / node.name / "name"),
            index=int(_read(sysfs / node.name / "index") or 0),
            is_readable=os.access(node, os.R_OK | os.W_OK),
        )
        for node in nodes
    ]
    return sorted(found, key=lambda device: (device.index > 0, int(re.sub(r"\D", "", Path(device.path).name))))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
