"""Speech servers for the relay: independent ones that answer, and ones that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest

WYOMING = """
import asyncio, socket, sys
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.server import AsyncEventHandler, AsyncTcpServer

class Asr(AsyncEventHandler):
    said, rate, name, started, stopped = b"", 0, "", False, False
    async def handle_event(self, event: Event) -> bool:
        if Transcribe.is_type(event.type):
            self.name = Transcribe.from_event(event).name
        elif AudioStart.is_type(event.type):
            self.started = AudioStart.from_event(event).channels == 1
        elif AudioChunk.is_type(event.type):
            chunk = AudioChunk.from_event(event)
            assert chunk.width == 2 and chunk.channels == 1
            self.said, self.rate = self.said + chunk.audio, chunk.rate
        elif AudioStop.is_type(event.type):
            text = f"{self.name} heard {len(self.said) // 2} samples at {self.rate} started {self.started}"
            await self.write_event(Transcript(text=text, language="en").event())
            return False
        return True

async def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = AsyncTcpServer("127.0.0.1", port)
    await server.start(Asr)
    print(port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def wyoming_server() -> Iterator[str]:
    """The server of the `wyoming` package in a process of its own; its url."""
    if find_spec("wyoming") is None:
        pytest.skip("the package wyoming is not installed: pip install 'edge-runtime[dev]'")
    process = subprocess.Popen([sys.executable, "-c", WYOMING], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the wyoming server did not start"
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextlib.contextmanager
def tcp_server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """Every connection is handed to `behave`; the url of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(client,), daemon=True).start()

    def one(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            behave(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def until_closed(client: socket.socket) -> None:
    """Take everything and say nothing, until the other side gives up."""
    client.settimeout(20)
    while client.recv(1 << 16):
        pass


class Inference(BaseHTTPRequestHandler):
    """A strict server of the Open Inference Protocol v2, as its text has it: whatever is not to the letter is a 400."""

    model: dict[str, Any]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        known = self.path == f"/v2/models/{self.model['name']}"
        self._answer(200, self.model) if known else self._answer(404, {"error": f"no model at {self.path}"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self._answer(200, self._infer(body))
        except (AssertionError, KeyError) as err:
            self._answer(400, {"error": f"{type(err).__name__}: {err}"})

    def _infer(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self.path == f"/v2/models/{self.model['name']}/infer", self.path
        assert self.headers["Content-Type"] == "application/json"
        assert set(body) <= {"id", "parameters", "inputs", "outputs"}
        wanted = {tensor["name"]: tensor for tensor in self.model["inputs"]}
        given = {tensor["name"]: tensor for tensor in body["inputs"]}
        assert set(given) == set(wanted), f"inputs {sorted(given)}"
        for name, tensor in given.items():
            assert set(tensor) <= {"name", "shape", "datatype", "parameters", "data"}
            assert tensor["datatype"] == wanted[name]["datatype"], name
            assert len(tensor["shape"]) == len(wanted[name]["shape"]), name
            count = 1
            for size in tensor["shape"]:
                count *= size
            assert len(tensor["data"]) == count, name
        samples = body["inputs"][0]["data"]
        loud = max(abs(value) for value in samples)
        said = {"text": f"{len(samples)} samples up to {loud:.3f}", "confidence": 0.75}
        rest = {name: tensor["data"][0] for name, tensor in given.items() if name != body["inputs"][0]["name"]}
        outputs = [
            {"name": tensor["name"], "shape": [1, 1], "datatype": tensor["datatype"],
             "data": [said["text"] + "".join(f" {k}={v}" for k, v in rest.items())]
             if tensor["datatype"] == "BYTES" else [said["confidence"]]}
            for tensor in self.model["outputs"]
        ]  # fmt: skip
        return {"model_name": self.model["name"], "outputs": outputs}

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def inference_server(model: dict[str, Any]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Strict", (Inference,), {"model": model}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
