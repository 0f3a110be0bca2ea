"""From where a request comes and what it calls us: peers, proxies, Host and Origin.

A page in a browser on the box may point a name of its own at 127.0.0.1 and then ask us as if it stood on loopback (DNS
rebinding): the Host header gives it away, so only names on the list are answered. What says of itself that it was
forwarded, by a proxy that nobody named, is no caller from here. A proxy or tunnel that adds no header cannot be told
from somebody on the box: it is named in `serve.trusted_proxies`, or `serve.loopback_login` asks everybody.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence

from edge_runtime.core.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
DEFAULT_PORTS = {"http": "80", "https": "443"}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
FORWARDED = (b"forwarded", b"via", b"x-real-ip")  # and all that begin so:
FORWARDED_PREFIX = b"x-forwarded-"


def host_of(header: str) -> str:
    """The host of a Host header or an Origin, lower case and without its port; empty when it is none."""
    text = header.strip().lower()
    if text.startswith("["):
        host, closed, rest = text.partition("]")
        return f"{host}]" if closed and (not rest or rest.startswith(":")) else ""
    host, _, port = text.partition(":")
    is_name = bool(host) and all(letter.isalnum() or letter in "-._" for letter in host) and host.isascii()
    return host.rstrip(".") if is_name and (not port or port.isdecimal()) else ""


def site_of(scheme: str, place: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of what stands in an Origin or Host header; None when it is no site."""
    host, scheme = host_of(place), scheme.strip().lower()
    if not host or scheme not in DEFAULT_PORTS:
        return None
    port = place.strip().rpartition("]")[2].partition(":")[2]
    return scheme, host, port or DEFAULT_PORTS[scheme]


def own_names(allowed: Iterable[str], listening: str) -> list[str]:
    """By what this box may be called: loopback, what the station file allows, and its own name where it listens to the
    network, also as mDNS has it. listening: `serve.host`."""
    names = [*LOOPBACK_NAMES, *(name.lower() for name in allowed)]
    if not is_loopback_host(listening):
        own = socket.gethostname().lower()
        names += [own, f"{own.partition('.')[0]}.local", listening.lower()]
    return [name for name in names if name.isascii()]


class Hosts:
    """Which Host headers mean this box."""

    def __init__(self, allowed: Iterable[str], listening: str) -> None:
        self._listed = {name.lower() for name in allowed}
        self._names = set(own_names(allowed, listening))
        self._is_open = not is_loopback_host(listening)

    def knows(self, header: str) -> bool:
        """Whether the header names this box. Listening to the network, an address is one too: no DNS can forge it."""
        host = host_of(header)
        return bool(host) and (host in self._names or (self._is_open and _address(host.strip("[]")) is not None))

    def is_own_page(self, origin: str, scheme: str, asked: str) -> bool:
        """Whether a page of this Origin is one of ours: of the scheme, host and port that were asked for.

        scheme, asked: of the request, as the browser has them. A name in `serve.allowed_hosts` may differ in scheme,
        and stand at the usual port of it: TLS may end before us.
        """
        kind, _, place = origin.partition("://")
        page, own = site_of(kind, place), site_of(scheme, asked)
        if page is None or own is None or not self.knows(asked):
            return False
        usual = page[2] == DEFAULT_PORTS[page[0]] or place.strip().lower() == asked.strip().lower()
        return page == own or (page[1] in self._listed and usual)


class Peers:
    """Who really asks, behind the proxies that the station trusts. proxies: addresses or networks."""

    def __init__(self, proxies: Sequence[str]) -> None:
        try:
            self._proxies = [ipaddress.ip_network(proxy) for proxy in proxies]
        except ValueError as err:
            raise ConfigError(f"serve.trusted_proxies: {err}", "give addresses or networks, such as 10.0.0.7") from err

    def real(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bool]:
        """The caller's address, and whether it can be believed that nobody stands between (or only trusted proxies).

        X-Forwarded-For is read from its end: what a trusted proxy added is true, what stands before it anybody wrote.
        Loopback out of a header is never believed: it is the proxy's loopback, or what a client wrote.
        """
        found = list(headers)
        if not self.is_proxy(peer):
            return peer, not any(is_forwarding(name) for name, _ in found)
        said = b",".join(value for name, value in found if name == b"x-forwarded-for").decode("latin-1")
        for hop in reversed([hop.strip() for hop in said.split(",") if hop.strip()]):
            if _address(hop) is None:
                return peer, False
            if not self.is_proxy(hop):
                return hop, not is_loopback(hop)
        return peer, False  # a proxy that does not say for whom it asks

    def is_proxy(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(
            found in network for network in self._proxies if network.version == found.version
        )


def is_forwarding(header: bytes) -> bool:
    """Whether a header of this name, in lower case, tells that somebody passed the request on."""
    return header in FORWARDED or header.startswith(FORWARDED_PREFIX)


def is_loopback_host(host: str) -> bool:
    """Whether `serve.host` keeps to this machine; no name is looked up."""
    return host.lower() == "localhost" or is_loopback(host)


def is_loopback(address: str) -> bool:
    found = _address(address)
    return found is not None and found.is_loopback


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
