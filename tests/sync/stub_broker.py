"""A small broker that does what no real one does on request: refuses, hangs up, keeps silent, throws away. 3.1.1 and 5.

A peer of the product: it shares no code with it. What it keeps is in `kept`, as a consumer would have got it.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HANG_UP, SILENT = -1, -2  # instead of a reason code
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PING, DISCONNECT = 1, 3, 4, 8, 10, 12, 14


@dataclass
class Rules:
    """What this broker does. answer(topic, payload): reason code of the PUBACK, HANG_UP or SILENT; a 3.1.1 client gets
    a plain PUBACK for any code. keeps(topic, payload): whether what it acknowledged goes anywhere."""

    answer: Callable[[str, bytes], int] = lambda topic, payload: 0
    keeps: Callable[[str, bytes], bool] = lambda topic, payload: True
    grants: Callable[[str], int] = lambda topic: 1  # of SUBACK, or HANG_UP
    shows: Callable[[str], bool] = lambda topic: True  # to whom subscribed
    connack: bytes = b""  # properties


@dataclass
class StubBroker:
    rules: Rules = field(default_factory=Rules)
    kept: list[tuple[str, bytes]] = field(default_factory=list)
    sent: list[tuple[float, str, bytes]] = field(default_factory=list)  # by clients, kept or not
    connects: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._is_over = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._is_over = True
        for sock in [self._server, *self._sockets]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload in list(self.kept) if topic.endswith("/rec")]

    def seqs(self) -> set[int]:
        return {record["seq"] for record in self.records()}

    def tries(self, seq: int) -> int:
        """How often that record was sent, kept or not."""
        named = b'"seq":%d,' % seq
        return sum(topic.endswith("/rec") and named in payload for _, topic, payload in list(self.sent))

    def _accept(self) -> None:
        while not self._is_over:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        try:
            _Session(self, sock, stream).run()
        except (OSError, EOFError, ValueError):
            pass
        finally:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            stream.close()
            sock.close()


class _Session:
    def __init__(self, broker: StubBroker, sock: socket.socket, stream: Any) -> None:
        self._broker, self._sock, self._stream = broker, sock, stream
        self._is_5 = False
        self._filters: set[str] = set()
        self._next_id = 0

    def run(self) -> None:
        while True:
            head, body = self._packet()
            kind = head >> 4
            if kind == CONNECT:
                self._connect(body)
            elif kind == PUBLISH:
                self._publish(head, body)
            elif kind == SUBSCRIBE:
                self._subscribe(body)
            elif kind == UNSUBSCRIBE:
                self._filters.clear()
                self._sock.sendall(b"\xb0" + _sized(body[:2] + (b"\x00\x00" if self._is_5 else b"")))
            elif kind == PING:
                self._sock.sendall(b"\xd0\x00")
            elif kind == DISCONNECT:
                return

    def _connect(self, body: bytes) -> None:
        self._is_5 = body[6] == 5
        self._broker.connects.append(time.monotonic())
        properties = self._broker.rules.connack
        rest = b"\x00\x00" + (_sized(properties) if self._is_5 else b"")
        self._sock.sendall(b"\x20" + _sized(rest))

    def _publish(self, head: int, body: bytes) -> None:
        size = struct.unpack(">H", body[:2])[0]
        topic, at = body[2 : 2 + size].decode(), 2 + size
        packet = b""
        if head >> 1 & 3:
            packet, at = body[at : at + 2], at + 2
        if self._is_5:
            at += 1 + body[at]
        payload, broker = body[at:], self._broker
        broker.sent.append((time.monotonic(), topic, payload))
        code = broker.rules.answer(topic, payload)
        if code == HANG_UP:
            raise EOFError
        if code < 0x80 and code != SILENT and broker.rules.keeps(topic, payload):
            broker.kept.append((topic, payload))
            if topic in self._filters and broker.rules.shows(topic):
                self._show(topic, payload)
        if packet and code != SILENT:
            self._sock.sendall(b"\x40" + _sized(packet + (bytes([code]) if self._is_5 and code else b"")))

    def _show(self, topic: str, payload: bytes) -> None:
        self._next_id = self._next_id % 60_000 + 1
        name = topic.encode()
        body = struct.pack(">H", len(name)) + name + struct.pack(">H", self._next_id)
        self._sock.sendall(b"\x32" + _sized(body + (b"\x00" if self._is_5 else b"") + payload))

    def _subscribe(self, body: bytes) -> None:
        at = 2 + (1 + body[2] if self._is_5 else 0)
        size = struct.unpack(">H", body[at : at + 2])[0]
        topic = body[at + 2 : at + 2 + size].decode()
        code = self._broker.rules.grants(topic)
        if code == HANG_UP:
            raise EOFError
        if code < 0x80:
            self._filters.add(topic)
        self._sock.sendall(b"\x90" + _sized(body[:2] + (b"\x00" if self._is_5 else b"") + bytes([code])))

    def _packet(self) -> tuple[int, bytes]:
        head = self._read(1)[0]
        size = shift = 0
        while True:
            byte = self._read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head, self._read(size)

    def _read(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) < size:
            raise EOFError
        return bytes(found)


def _sized(body: bytes) -> bytes:
    size, rest = b"", len(body)
    while True:
        rest, byte = divmod(rest, 128)
        size += bytes([byte | (128 if rest else 0)])
        if not rest:
            return size + body
