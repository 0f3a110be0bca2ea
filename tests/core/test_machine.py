"""Which machine it is: by a made-up /sys, as boards and PCs have it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.core.machine import difference, this_machine


class Sys:
    """A tree like /sys, with a board, network devices, and the disk that holds a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root / "sys", root / "state"
        self.folder.mkdir(parents=True)
        number = self.folder.stat().st_dev
        self.block = f"{os.major(number)}:{os.minor(number)}"

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def network(self, name: str, address: str, *, bus: str = "pci0000:00/0000:00:1f.6", kind: int = 0) -> None:
        home = f"devices/{bus}/net/{name}"
        self.write(f"{home}/address", address + "\n")
        self.write(f"{home}/addr_assign_type", f"{kind}\n")
        if bus != "virtual":
            (self.root / home / "device").symlink_to(self.root / f"devices/{bus}")
        (self.root / "class/net").mkdir(parents=True, exist_ok=True)
        (self.root / "class/net" / name).symlink_to(self.root / home)

    def card(self, cid: str) -> None:
        self.write("devices/mmc0/mmcblk0/device/cid", cid + "\n")
        self.write("devices/mmc0/mmcblk0/mmcblk0p2/partition", "2\n")
        (self.root / "dev/block").mkdir(parents=True, exist_ok=True)
        (self.root / "dev/block" / self.block).symlink_to(self.root / "devices/mmc0/mmcblk0/mmcblk0p2")

    def encrypted_disk(self, serial: str) -> None:
        self.write("devices/nvme/nvme0n1/wwid", serial + "\n")
        self.write("devices/nvme/nvme0n1/nvme0n1p3/partition", "3\n")
        slaves = self.root / "devices/virtual/block/dm-0/slaves"
        slaves.mkdir(parents=True)
        (slaves / "nvme0n1p3").symlink_to(self.root / "devices/nvme/nvme0n1/nvme0n1p3")
        (self.root / "dev/block").mkdir(parents=True, exist_ok=True)
        (self.root / "dev/block" / self.block).symlink_to(self.root / "devices/virtual/block/dm-0")

    def look(self, named: str = "") -> dict[str, tuple[str, ...]]:
        return this_machine(self.folder, named, self.root)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Sys]:
    return lambda name: Sys(tmp_path / name)


def pi(make: Callable[[str], Sys], name: str, serial: str, cid: str) -> Sys:
    made = make(name)
    made.write("firmware/devicetree/base/serial-number", serial + "\0")
    made.network("eth0", f"dc:a6:32:00:00:{len(name):02x}")
    made.card(cid)
    return made


def test_a_cloned_card_in_another_board_or_another_card_in_the_same_board_is_told(make: Callable[[str], Sys]) -> None:
    one = pi(make, "one", "10000000aaaaaaaa", "27504853443332473061").look()
    assert set(one) == {"serial", "network", "medium"}
    assert difference(one, pi(make, "again", "10000000aaaaaaaa", "27504853443332473061").look()) == ""
    assert difference(one, pi(make, "board", "10000000bbbbbbbb", "27504853443332473061").look()) == "serial"
    assert difference(one, pi(make, "card", "10000000aaaaaaaa", "1b534d45423151543061").look()) == "medium"


def test_network_adapters_that_come_and_go_change_nothing(make: Callable[[str], Sys]) -> None:
    pc = make("pc")
    pc.network("enp1s0", "00:1b:21:00:00:01")
    pc.encrypted_disk("eui.0025385b01234567")
    before = pc.look()
    assert set(before) == {"network", "medium"}
    pc.network("enx0", "00:e0:4c:00:00:09", bus="pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0")
    pc.network("docker0", "02:42:00:00:00:01", bus="virtual")
    pc.network("wlan0", "3a:00:00:00:00:01", bus="pci0000:00/0000:00:1c.0", kind=1)  # drawn at random
    assert pc.look() == before
    pc.network("enp2s0", "00:1b:21:00:00:02", bus="pci0000:00/0000:00:1f.7")
    assert pc.look() != before and difference(before, pc.look()) == difference(pc.look(), before) == ""


def test_what_a_maker_left_blank_tells_nothing(make: Callable[[str], Sys]) -> None:
    pc = make("pc")
    for text in ("To be filled by O.E.M.", "Default string", "00000000-0000-0000-0000-000000000000", "", "None"):
        pc.write("class/dmi/id/product_uuid", text + "\n")
        assert pc.look() == {}
    pc.write("firmware/devicetree/base/serial-number", "0000000000000000\0")
    assert pc.look() == {}


def test_what_only_root_may_read_makes_no_other_machine_for_the_service(make: Callable[[str], Sys]) -> None:
    pc = make("pc")
    pc.network("enp1s0", "00:1b:21:00:00:01")
    service = pc.look()
    pc.write("class/dmi/id/product_uuid", "4c4c4544-0042-3510-8052-b4c04f4e3332\n")
    root = pc.look()
    assert set(root) - set(service) == {"uuid"} and difference(service, root) == difference(root, service) == ""


def test_a_name_stands_in_for_hardware_and_no_serial_number_is_kept_in_clear(make: Callable[[str], Sys]) -> None:
    one = pi(make, "one", "10000000aaaaaaaa", "27504853443332473061")
    assert "aaaaaaaa" not in str(one.look()) and set(one.look("cell 4")) == {"named"}
    assert difference(one.look("cell 4"), one.look("cell 5")) == "named"
    assert difference(one.look("cell 4"), one.look("cell 4")) == ""
    assert difference(one.look(), one.look("cell 4")) == "unknown"


def test_the_machine_that_runs_this_is_the_same_twice(tmp_path: Path) -> None:
    assert this_machine(tmp_path) == this_machine(tmp_path)
