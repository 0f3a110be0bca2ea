"""The page of the demo: `edge-runtime serve` beside `run`, its address, and a browser that shows it."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import IO

from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.state import State

START_S = 20.0
END_S = 6.0
INSTALL = "no page in this demo: pip install 'edge-runtime[demo]' brings the web server"


class DemoPage:
    """Started at once, known a moment later: the line must not wait for it."""

    def __init__(self, words: Sequence[str], port: int, log: IO[str] | None) -> None:
        """words: global options of the demo. log: where the daemon's lines go; None: stderr."""
        self.url = ""
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", *words, "serve", "--port", str(_free(port))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def wait(self, within_s: float = START_S) -> str:
        """The address, once it is listened on; empty when the daemon ended or says nothing."""
        limit = time.monotonic() + within_s
        assert self._daemon.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._daemon.stdout, selectors.EVENT_READ)
            while not self.url and self._daemon.poll() is None and (left := limit - time.monotonic()) > 0:
                if ready.select(min(left, 0.5)):
                    self.url = self._daemon.stdout.readline().strip()
        return self.url

    def health(self) -> ComponentHealth:
        """A line for the screen."""
        return ComponentHealth(State.OK if self._daemon.poll() is None else State.FAILED, self.url, None)

    def stop(self) -> None:
        """Safe to call twice."""
        self._daemon.terminate()
        try:
            self._daemon.wait(END_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        if self._daemon.stdout is not None:
            self._daemon.stdout.close()


def open_page(words: Sequence[str], port: int, log: IO[str] | None) -> DemoPage | str:
    """The page, being started; or one line that says why there is none. port: a free one is taken where it is taken."""
    if any(find_spec(name) is None for name in ("starlette", "uvicorn", "sse_starlette")):
        return INSTALL
    return DemoPage(words, port, log)


def show(url: str, env: Mapping[str, str] = os.environ) -> bool:
    """Open it in a browser; whether one was found. Only where there are windows: a browser of text would take the
    terminal that the demo is on."""
    has_windows = bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY")) or sys.platform == "darwin"
    return has_windows and webbrowser.open(url)


def _free(port: int) -> int:
    """The port, or 0 for any other one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
