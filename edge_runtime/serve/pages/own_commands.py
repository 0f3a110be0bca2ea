"""Commands of the box run as child processes for whoever looks: their words, their idle priority, two at a time.

A command that computes beside a running line steps back by itself, and what it loads is gone when it ends, so that
neither `run` nor `serve` pays for a look. Their JSON is what the command line prints.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edge_runtime.core.errors import DeviceError

AT_ONCE = 2  # a person who waits for an answer does not wait for doctor too
WRONG_USAGE = 2  # what a command ends with when it was not carried out


class OwnCommands:
    """station: the words that name the station file, as `edge-runtime` takes them. `stop` from any thread."""

    def __init__(self, station: Sequence[str]) -> None:
        self._station = tuple(station)
        self._pool = ThreadPoolExecutor(AT_ONCE, "page-command")
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    async def tell(self, *words: str, within_s: float) -> Any:
        """The JSON document that a command prints. Raises DeviceError with the command's own sentence."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._run(words, within_s))

    def stop(self) -> None:
        """End what runs; safe to call twice."""
        with self._lock:
            self._is_stopped = True
            for child in self._children:
                child.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, words: Sequence[str], within_s: float) -> Any:
        child = self._begin([sys.executable, "-m", "edge_runtime", *self._station, *words, "--json"])
        try:
            out, noted = child.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as err:
            child.kill()
            child.communicate()
            raise DeviceError(f"`{' '.join(words)}` was not done within {within_s:.0f} s", "try again later") from err
        finally:
            with self._lock:
                self._children.discard(child)
        return _document(words, child.returncode, out, noted)

    def _begin(self, line: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_stopped:
                raise DeviceError("this server is about to end", "reload the page")
            child = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
            self._children.add(child)
            return child


def _document(words: Sequence[str], code: int, out: bytes, noted: bytes) -> Any:
    try:
        told = json.loads(out)
    except ValueError as err:
        last = noted.decode(errors="replace").strip().splitlines()[-1:] or [f"it ended with {code}"]
        raise DeviceError(f"`{' '.join(words)}` says nothing that can be shown: {last[0][:300]}") from err
    if isinstance(told, dict) and set(told) <= {"error", "fix"} and "error" in told:
        raise DeviceError(told["error"], told.get("fix", ""))
    if code == WRONG_USAGE:
        raise DeviceError(f"`{' '.join(words)}` was refused")
    return told
