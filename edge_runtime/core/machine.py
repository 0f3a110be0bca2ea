"""Which machine this is, told by what a copy of its disk or card does not carry along.

/etc/machine-id lies on the card and is cloned with it, and so are host names and file-system ids. Hardware is not:

serial    of the board, from the device tree (Raspberry Pi, Jetson); it is fused into the chip and decides alone
uuid      of a PC's board (DMI). Only root may read it; the service does without
network   permanent addresses of built-in network devices. USB adapters are left out: they are lent and swapped
medium    serial number of the card or disk under the state folder: a clone of it lies on another one

All of it is readable under /sys by the service's user inside the unit's walls (which hide /proc/device-tree). Each is
kept as a salted digest: the outbox must not publish serial numbers. A site whose hardware says nothing (containers,
virtual machines cloned with their addresses) names the machine itself, `sync.machine_id`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

SALT = b"edge-runtime machine 1 "
DIGEST_DIGITS = 16
SERIAL = "firmware/devicetree/base/serial-number"
UUIDS = ("class/dmi/id/product_uuid", "class/dmi/id/board_serial")
PERMANENT = "0"  # addr_assign_type, linux/netdevice.h NET_ADDR_PERM
MEDIUM_SERIALS = ("device/cid", "wwid", "serial", "device/serial", "device/wwid")
SAYS_NOTHING = {"none", "unknown", "default string", "to be filled by o.e.m.", "not specified", "system serial number"}
MOST_LAYERS = 6  # of partitions, encryption and volumes between a folder and its disk

Machine = Mapping[str, tuple[str, ...]]  # what tells it apart -> digests; absent: this hardware does not say


def this_machine(folder: Path, named: str = "", sysfs: Path = Path("/sys")) -> dict[str, tuple[str, ...]]:
    """What is known of the machine and of the medium that holds `folder`. Never raises: what cannot be read is absent.

    named: what the station calls this machine; it then stands in place of the hardware.
    """
    if named:
        return {"named": _digests([named])}
    found = {
        "serial": [_text(sysfs / SERIAL)],
        "uuid": [_text(sysfs / name) for name in UUIDS],
        "network": _network_addresses(sysfs),
        "medium": [_medium_serial(folder, sysfs)],
    }
    digests = {name: _digests(values) for name, values in found.items()}
    return {name: values for name, values in digests.items() if values}


def difference(before: Machine, now: Machine) -> str:
    """What says that this is another machine: `named`, `serial`, `uuid`, `network`, `medium`; empty when nothing does.

    Only what was known both times is compared, so that a run by root, or a device that appears, changes nothing. Where
    both know something and nothing of it can be compared, that is `unknown`: it cannot be shown to be the same.
    """
    common = before.keys() & now.keys()
    if before and now and not common:
        return "unknown"
    for name in ("named", "medium", "serial"):
        if name in common and not set(before[name]) & set(now[name]):
            return name
    if "serial" in common or "named" in common:
        return ""  # a board may get another network device
    for name in ("uuid", "network"):
        if name in common and not set(before[name]) & set(now[name]):
            return name
    return ""


def _network_addresses(sysfs: Path) -> list[str]:
    """Of devices that are soldered or plugged in for good: they have hardware behind them, and it is not on USB."""
    found = []
    for device in _children(sysfs / "class/net"):
        behind = device / "device"
        if not behind.exists() or "/usb" in os.path.realpath(behind):
            continue
        if _raw(device / "addr_assign_type") == PERMANENT:
            found.append(_text(device / "address"))
    return [address for address in found if address.strip("0:")]


def _medium_serial(folder: Path, sysfs: Path) -> str:
    """Serial number of the card or disk; empty where it has none, or where several hold the folder."""
    try:
        number = folder.stat().st_dev
    except OSError:
        return ""
    block = Path(os.path.realpath(sysfs / f"dev/block/{os.major(number)}:{os.minor(number)}"))
    for _ in range(MOST_LAYERS):
        below = _children(block / "slaves")
        if len(below) == 1:
            block = Path(os.path.realpath(below[0]))
        elif (block / "partition").exists():
            block = block.parent
        else:
            break
    return next(filter(None, (_text(block / name) for name in MEDIUM_SERIALS)), "")


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    """One value of sysfs, without what a maker leaves in when he says nothing."""
    text = _raw(file)
    return "" if text.lower() in SAYS_NOTHING or not text.strip("0-. ") else text


def _raw(file: Path) -> str:
    try:
        return file.read_bytes().strip(b"\0 \n\t").decode("ascii", "replace")
    except OSError:
        return ""


def _digests(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({hashlib.sha256(SALT + v.encode()).hexdigest()[:DIGEST_DIGITS] for v in values if v}))
