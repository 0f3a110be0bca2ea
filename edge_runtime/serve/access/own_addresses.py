"""The addresses that this machine has on its interfaces, for its certificate.

Asked of the kernel by an ioctl and a file of our own process: `serve` may open no netlink socket, and nobody is looked
up. Addresses that come and go by design are left out: link-local ones and those of IPv6 privacy.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

SIOCGIFCONF = 0x8912  # <linux/sockios.h>
MOST_INTERFACES = 256
IFREQ_BYTES = 40  # struct ifreq on 64-bit Linux: name 16, union 24
IFREQ_BYTES_32 = 32
IF_INET6 = Path("/proc/self/net/if_inet6")
GLOBAL_SCOPE, TEMPORARY = 0x00, 0x01  # <net/ipv6.h>, IFA_F_TEMPORARY


def own_addresses() -> list[str]:
    """Of both families, as text; never loopback or link-local."""
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [*_version_4(), *_version_6()]
    return [str(one) for one in found if not (one.is_loopback or one.is_link_local or one.is_unspecified)]


def _version_4() -> Iterator[ipaddress.IPv4Address]:
    size = IFREQ_BYTES if struct.calcsize("P") == 8 else IFREQ_BYTES_32
    room = array.array("B", bytes(MOST_INTERFACES * size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asked = struct.pack("iP", len(room), room.buffer_info()[0])  # struct ifconf
        length = struct.unpack("iP", fcntl.ioctl(asking, SIOCGIFCONF, asked))[0]
    for at in range(0, length, size):
        yield ipaddress.IPv4Address(room[at + 20 : at + 24].tobytes())  # name, family, port, address


def _version_6() -> Iterator[ipaddress.IPv6Address]:
    try:
        lines = IF_INET6.read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return
    for line in lines:
        address, _, _, scope, flags, _ = line.split()
        if int(scope, 16) == GLOBAL_SCOPE and not int(flags, 16) & TEMPORARY:
            yield ipaddress.IPv6Address(bytes.fromhex(address))
