"""Stands between a node and its brokers, writes down every packet in both directions, and can cut the wire."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from spb_mqtt import Connect, Cutter, MqttError, Packet, read

NODE, BROKER, WIRE = "node", "broker", "wire"


@dataclass(frozen=True, slots=True)
class Event:
    """One packet, or a word of the wire: "open", "cut" (by us), "closed" (by either side), "garbage"."""

    at_s: float  # since the log began
    connection: int
    server: int
    source: str  # NODE, BROKER or WIRE
    what: Packet | str


@dataclass
class Log:
    """Everything that happened, in order, and somebody to wake when something does."""

    events: list[Event] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)
    started_utc_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, connection: int, server: int, source: str, what: Packet | str) -> None:
        self.events.append(Event(time.monotonic() - self.started_s, connection, server, source, what))
        self.changed.set()


class Proxy:
    """One listening port in front of one broker."""

    def __init__(self, log: Log, server: int, broker: tuple[str, int]) -> None:
        self._log = log
        self._server = server
        self._broker = broker
        self._listener: asyncio.Server | None = None
        self._open: dict[int, list[asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Port 0 takes any; returns the one taken."""
        self._listener = await asyncio.start_server(self._serve, host, port)
        return int(self._listener.sockets[0].getsockname()[1])

    def cut(self) -> int:
        """Drop every connection without a word, as a pulled cable does. How many there were."""
        for number, writers in self._open.items():
            self._log.add(number, self._server, WIRE, "cut")
            for writer in writers:
                writer.transport.abort()
        return len(self._open)

    async def close(self) -> None:
        if self._listener:
            self._listener.close()
        for writers in self._open.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        number = sum(event.what == "open" for event in self._log.events)
        self._log.add(number, self._server, WIRE, "open")
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._broker)
        except OSError:
            self._log.add(number, self._server, WIRE, "closed")
            writer.transport.abort()
            return
        self._open[number] = [writer, up_writer]
        wire = _Wire(self._log, number, self._server)
        there = asyncio.ensure_future(wire.pump(NODE, reader, up_writer))
        back = asyncio.ensure_future(wire.pump(BROKER, up_reader, writer))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        if there.done():  # what the broker still has to say matters to nobody; what the node said must arrive
            with contextlib.suppress(OSError):
                await up_writer.drain()
            up_writer.close()
        else:
            writer.close()
        await asyncio.wait({there, back}, timeout=0.5)
        for end in (there, back):
            end.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        self._log.add(number, self._server, WIRE, "closed")
        del self._open[number]
        for end_writer in (writer, up_writer):
            end_writer.transport.abort()


class _Wire:
    """Both directions of one connection; they share the protocol level that CONNECT tells."""

    def __init__(self, log: Log, number: int, server: int) -> None:
        self._log, self._number, self._server = log, number, server
        self._level = 4

    async def pump(self, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cutter = Cutter()
        is_mqtt = True
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_mqtt:
                    is_mqtt = self._write_down(source, cutter, data)
                writer.write(data)
                await writer.drain()

    def _write_down(self, source: str, cutter: Cutter, data: bytes) -> bool:
        try:
            for first, body in cutter.feed(data):
                packet = read(first, body, self._level)
                if isinstance(packet, Connect):
                    self._level = packet.level
                if packet is not None:
                    self._log.add(self._number, self._server, source, packet)
        except MqttError:
            self._log.add(self._number, self._server, source, "garbage")
            return False
        return True
