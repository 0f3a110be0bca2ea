"""Which video devices this box has, from /dev and sysfs alone: opening one would disturb who uses it.

A Raspberry Pi has some thirty nodes before its first webcam: codecs, the image processor, and the receivers of the
camera connectors, whose raw data only libcamera makes into pictures. All call themselves index 0. What hangs on USB
is a camera; of the others the name of the driver says what they are.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys/class/video4linux")
DEV = Path("/dev")

# bcm2835-codec, bcm2835-isp, rpi-hevc-dec, rpivid, pispbe, rp1-cfe, unicam (Raspberry Pi); hantro-vpu, rkisp, rkvdec,
# rga (Rockchip); wave5, coda, mxc-jpeg, pxp (i.MX); mtk-vcodec, mtk-mdp (MediaTek); amphion, venus, iris (Qualcomm)
_NO_CAMERA = re.compile(
    r"codec|\bisp\b|-isp|rkisp|pispbe|hevc|rpivid|rp1-cfe|unicam|vpu|\bvdec|\bvenc|rkv|\brga\b|hantro|wave5|\bcoda"
    r"|jpeg[-_ ]?(dec|enc)|mxc-jpeg|\bpxp|mtk-mdp|amphion|venus|-iris|\bm2m|mem2mem|decoder|encoder|metadata",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class VideoDevice:
    """One device node. A USB camera has two: index 0 takes pictures, the others only describe them."""

    path: str
    name: str  # as the driver calls it: "HD Pro Webcam C920"
    index: int
    is_readable: bool
    takes_pictures: bool = True  # False: a codec, an image processor, a raw receiver, or the metadata of a camera

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else self.path


def list_devices(dev: Path = DEV, sysfs: Path = SYSFS) -> list[VideoDevice]:
    """Every /dev/video*, those that take pictures first, each kind by number."""
    nodes = [node for node in dev.glob("video*") if re.fullmatch(r"video\d+", node.name)]
    found = [_look(node, sysfs / node.name) for node in nodes]
    return sorted(
        found, key=lambda device: (not device.takes_pictures, int(Path(device.path).name.removeprefix("video")))
    )


def _look(node: Path, about: Path) -> VideoDevice:
    name, index = _read(about / "name"), int(_read(about / "index") or 0)
    is_on_usb = (about / "device" / "subsystem").resolve().name == "usb"
    return VideoDevice(
        path=str(node),
        name=name,
        index=index,
        is_readable=os.access(node, os.R_OK | os.W_OK),
        takes_pictures=index == 0 and (is_on_usb or not _NO_CAMERA.search(name)),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
