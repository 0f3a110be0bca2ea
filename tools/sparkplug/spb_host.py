"""Plays the host and the bad weather: asks for rebirths, comes and goes as primary host, cuts the wire."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import time
from collections.abc import Callable, Sequence

from spb_course import Watch
from spb_mqtt import GOODBYE, Connect, Publish, connect_bytes, publish_bytes
from spb_payload import rebirth_request
from spb_proxy import NODE, Log, Proxy

DATA_WAIT_S = 3.0  # for a first data message between birth and the request to be born again
BORN_WAIT_S = 90.0  # a node may rest up to a minute between attempts
QUIET_S = 1.2  # nothing may happen that long
CUT_AFTER_S = (0.0, 1.5)  # a birth: in the middle of it, or well into the data
STRAGGLER_EVERY_S = 0.05


class Host:
    """A host application of few words on one broker: each message is a short session of its own."""

    def __init__(self, broker: tuple[str, int]) -> None:
        self._broker = broker

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        reader, writer = await asyncio.open_connection(*self._broker)
        try:
            writer.write(connect_bytes(f"sparkplug-check-{random.getrandbits(48):x}"))
            answer = await asyncio.wait_for(reader.readexactly(4), 5.0)
            if answer[0] >> 4 != 2 or answer[3]:
                raise OSError(f"the broker refused the checker's own connection with code {answer[3]}")
            writer.write(publish_bytes(topic, payload, retain=retain) + GOODBYE)
            await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def state(self, host_id: str, online: bool, stamp_ms: int, *, retain: bool = True) -> None:
        said = json.dumps({"online": online, "timestamp": stamp_ms}).encode()
        await self.publish(f"spBv1.0/STATE/{host_id}", said, retain=retain)


class Driver:
    """Everything the checker does to a node, in an order that lets each rule be seen."""

    def __init__(self, log: Log, watch: Watch, proxies: Sequence[Proxy], brokers: Sequence[tuple[str, int]]) -> None:
        self._log, self._watch, self._proxies = log, watch, proxies
        self._hosts = [Host(broker) for broker in brokers]

    async def run(self, cuts: int, rng: random.Random) -> None:
        """Returns when all is done. Raises TimeoutError when the node does not come (back), OSError for the broker."""
        if self._watch.host:
            await self._come_and_go(self._watch.host)
        await self._ask_rebirth()
        for _ in range(cuts):
            births = self._births()
            await asyncio.sleep(rng.uniform(*CUT_AFTER_S))
            for proxy in self._proxies:
                proxy.cut()
            await self._until(functools.partial(self._has_more_births_than, births))
        await self._some_data()

    def _has_more_births_than(self, births: int) -> bool:
        return self._births() > births

    async def _ask_rebirth(self) -> None:
        await self._until(lambda: self._births() > 0)
        await self._some_data()
        births = self._births()
        request = rebirth_request(time.time_ns() // 1_000_000)
        for host in self._hosts:
            await host.publish(self._watch.topic("NCMD"), request)
        await self._until(lambda: self._births() > births)
        await self._some_data()

    async def _come_and_go(self, host_id: str) -> None:
        """Wrong host, right host offline, online, a late offline, offline, a late online, online where it is now."""
        now = time.time_ns() // 1_000_000
        for host in self._hosts:
            await host.state(host_id + "-other", True, now)
            await host.state(host_id, False, now)
        await self._until(self._is_connected)
        await asyncio.sleep(QUIET_S)
        await self._hosts[0].state(host_id, True, now + 1)
        await self._until(lambda: self._births() > 0)
        await self._some_data()
        await self._hosts[0].state(host_id, False, now - 1000, retain=False)
        await asyncio.sleep(QUIET_S)
        connects, births = self._connects(), self._births()
        await self._hosts[0].state(host_id, False, now + 2)
        await self._until(lambda: self._connects() > connects)
        for _ in range(round(2 * QUIET_S / STRAGGLER_EVERY_S)):
            for host in self._hosts:
                await host.state(host_id, True, now - 1000, retain=False)
            await asyncio.sleep(STRAGGLER_EVERY_S)
        await self._hosts[-1].state(host_id, True, now + 3)
        await self._until(lambda: self._births() > births)

    async def _some_data(self) -> None:
        seen = self._count(b"NDATA"), self._count(b"DDATA")
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: self._count(b"NDATA") > seen[0] and self._count(b"DDATA") > seen[1], DATA_WAIT_S)

    async def _until(self, holds: Callable[[], bool], wait_s: float = BORN_WAIT_S) -> None:
        async with asyncio.timeout(wait_s):
            while not holds():
                self._log.changed.clear()
                await self._log.changed.wait()

    def _is_connected(self) -> bool:
        return self._connects() > 0

    def _connects(self) -> int:
        return sum(isinstance(event.what, Connect) for event in self._log.events)

    def _births(self) -> int:
        return self._count(b"NBIRTH")

    def _count(self, kind: bytes) -> int:
        return sum(
            event.source == NODE and isinstance(event.what, Publish) and kind in event.what.topic
            for event in self._log.events
        )
