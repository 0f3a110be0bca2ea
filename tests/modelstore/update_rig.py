"""What tests of updates share: a repository that tools/repo makes, servers good and bad, and a box that asks them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from repo_keys import Keys
from repo_metadata import UpdateRepository

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.modelstore.updates.https import HttpSource, Pace
from edge_runtime.modelstore.updates.update import Updates

NOW = datetime(2026, 12, 1, 5, 0, tzinfo=UTC)
SITE = "north"
QUICK = Pace(stall_s=0.4, grace_s=0.5, least_bytes_s=1_000_000)


class Publisher:
    """A repository in a folder, with keys beside it, at a time that the test moves."""

    def __init__(self, folder: Path, make_bundle: Callable[..., Any]) -> None:
        self.folder, self.now = folder / "repo", NOW
        self._make, self._work = make_bundle, folder
        self.tool = UpdateRepository(self.folder, Keys(folder / "keys"), lambda: self.now)
        self.tool.init(3, 2)

    @property
    def root(self) -> Path:
        return self.folder / "root.json"

    def publish(self, version: str, site: str = SITE, release: int | None = None, **manifest: Any) -> Any:
        """A new version of model `m`, signed; its bundle."""
        folder = self._work / f"bundle-{version}-{site}"
        bundle = self._make("heatmap", name="m", version=version, folder=folder, **manifest)
        self.tool.add(bundle.folder, site, release)
        self.tool.sign(30)
        return bundle

    def copy(self, name: str) -> Path:
        """The whole repository as it is now, for somebody to play back."""
        return Path(shutil.copytree(self.folder, self._work / name))


Fault = Callable[["Handler", bytes], None]


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; ranges as real servers do. faults: by a part of the path, what is done instead of sending."""

    protocol_version = "HTTP/1.1"

    def __init__(self, rig: Server, *args: Any, **more: Any) -> None:
        self.rig = rig
        super().__init__(*args, **more)

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.rig.asked.append((self.path, self.headers.get("Range", "")))
        file = self.rig.folder / self.path.partition("://")[2].partition("/")[2] if "://" in self.path else None
        file = file or self.rig.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        fault = next((do for part, do in self.rig.faults.items() if part in self.path), None)
        try:
            if fault:
                fault(self, content)
            else:
                self.send(content)
        except OSError:
            pass  # the box hung up
        self.close_connection = True

    def send(self, content: bytes, claimed: int | None = None) -> None:
        given = self.headers.get("Range", "")
        start = int(given.removeprefix("bytes=").rstrip("-")) if given else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(content) - start if claimed is None else claimed))
        self.end_headers()
        self.wfile.write(content[start:])


class Server:
    """A real HTTP server in threads. asked: (path, range) of each request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self.http.daemon_threads = True
        self._thread = threading.Thread(target=partial(self.http.serve_forever, 0.02), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            self.http.server_close()
            self._thread.join()


def endless(handler: Handler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content)
    while True:
        handler.wfile.write(bytes(1 << 16))


def cut_short(handler: Handler, content: bytes) -> None:
    handler.send(content[: len(content) // 2])


def broken_off(handler: Handler, content: bytes) -> None:
    handler.send(content[: len(content) // 2], claimed=len(content))


def dripping(handler: Handler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for number in range(len(content)):
        handler.wfile.write(content[number : number + 1])
        time.sleep(0.05)


def dripping_headers(handler: Handler, content: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        handler.wfile.write(b"a")
        time.sleep(0.05)


def silent(handler: Handler, content: bytes) -> None:
    handler.connection.settimeout(30)
    try:
        handler.connection.recv(1)  # until the box hangs up
    except (TimeoutError, OSError):
        pass


def swapped(handler: Handler, content: bytes) -> None:
    handler.send(content[:-1] + bytes([content[-1] ^ 1]))


class Box:
    """A box of site `north` that runs model `m`. now: what its clock says; None: nobody keeps it right."""

    def __init__(self, state: Path, root: Path) -> None:
        self.state, self.now = state, NOW
        self.now: datetime | None
        self.cfg = EdgeConfig.model_validate(
            {
                "station": {"site": SITE}, "model": {"name": "m"}, "recording": {"state_dir": str(state)},
                "updates": {"root": str(root)},
            }
        )  # fmt: skip

    def updates(self, source: Any) -> Updates:
        source = HttpSource(source, pace=QUICK) if isinstance(source, str) else source
        return Updates(self.cfg, source, lambda: self.now)

    def look(self, source: Any) -> Any:
        updates = self.updates(source)
        with updates.locked():
            return updates.look("m")

    def fetch(self, source: Any) -> bytes:
        """Look and fetch; the file's content."""
        updates = self.updates(source)
        with updates.locked():
            return updates.fetch(updates.look("m").offer).read_bytes()

    def later(self, **much: float) -> None:
        assert self.now is not None
        self.now += timedelta(**much)
