"""A real HTTP server of the product on a port of its own, and what a test asks it with."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from edge_runtime.config.load import load
from edge_runtime.serve.wiring import serve_components

LONGEST_S = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json()["error"])


@dataclass
class Box:
    """url: where it listens. state: its state folder."""

    url: str
    state: Any
    components: Mapping[str, Any]
    context: ssl.SSLContext | None = None

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    @property
    def token(self) -> str:
        return (self.state / "serve.token").read_text().strip()

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        host, port = self.address
        connection = (
            http.client.HTTPSConnection(host, port, timeout=LONGEST_S, context=self.context)
            if self.context
            else http.client.HTTPConnection(host, port, timeout=LONGEST_S)
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, content: Any, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("POST", path, content if isinstance(content, bytes) else json.dumps(content), headers)

    def raw(self, data: bytes = b"") -> socket.socket:
        """A plain connection that has said so much."""
        sock = socket.create_connection(self.address, timeout=LONGEST_S)
        sock.sendall(data)
        return sock


@contextlib.contextmanager
def box(state: Any, *settings: str, context: ssl.SSLContext | None = None) -> Iterator[Box]:
    """What `edge-runtime serve` runs for this station, in this process. settings: `section.key=value`."""
    given = [f'recording.state_dir="{state}"', "serve.port=0", *settings]
    cfg = load(None, given).config
    told: list[str] = []
    station = ["--config", "embedded", *(word for one in given for word in ("--set", one))]
    components = serve_components(cfg, told.append, station)
    with contextlib.ExitStack() as started:
        for component in components:
            component.start()
            started.callback(component.stop)
        yield Box(told[0], state, {component.name: component for component in components}, context)
