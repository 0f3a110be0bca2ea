"""A process of the simulated line, held by a pipe: it ends when the pipe closes, by `stop` or because its parent died.

It ignores SIGINT and SIGTERM, which reach a whole terminal or control group at once: the daemon still wants frames and
a controller while it drains. Closing the pipe is what ends it, so nothing is left over whichever way the parent goes.
Not PR_SET_PDEATHSIG: that fires when the thread that started the child ends, and lines are opened from any thread.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import DeviceError

READY_WITHIN_S = 60.0  # a box that is starting everything at once, on a slow card
ANSWER_WITHIN_S = 3.0  # a daemon that asks at its end has five seconds in all
END_WITHIN_S = 2.0


class SimChild:
    """The parent's handle. The child's main function is given `arguments` and its end of the pipe."""

    def __init__(self, name: str, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._name, self._target, self._arguments = name, target, arguments
        self._process: Any = None
        self._pipe: Connection | None = None
        self._greeting: Any = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and return at once; `wait_ready` says when it is of use."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(self._target, self._arguments, theirs), name=self._name, daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe, self._greeting = ours, None
        atexit.register(self.stop)  # runs before multiprocessing's own, which would wait for a child that waits for us

    def wait_ready(self) -> Any:
        """The first thing the child says. Raises DeviceError when it does not come."""
        if self._greeting is None:
            self._greeting = self._hear(READY_WITHIN_S, "did not start")
        return self._greeting

    def ask(self, question: Any) -> Any:
        """Send a question and return the answer. Raises DeviceError when the process is gone or does not answer."""
        self.wait_ready()
        try:
            if self._pipe is not None:
                self._pipe.send(question)
        except OSError as err:
            raise DeviceError(f"{self._name} has ended") from err
        return self._hear(ANSWER_WITHIN_S, "does not answer")

    def stop(self) -> None:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        atexit.unregister(self.stop)
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.join(END_WITHIN_S)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def _hear(self, timeout_s: float, complaint: str) -> Any:
        try:
            if self._pipe is not None and self._pipe.poll(timeout_s):
                return self._pipe.recv()
        except (EOFError, OSError) as err:
            raise DeviceError(f"{self._name} has ended; its own words are above") from err
        raise DeviceError(f"{self._name} {complaint} within {timeout_s:.0f} s")


def remove(file: Path, with_folder: bool) -> None:
    """Take away what a child put there, and the folder once it is empty, when it was made for the line alone."""
    file.unlink(missing_ok=True)
    if with_folder:
        with contextlib.suppress(OSError):  # the other child's file is still in it
            file.parent.rmdir()


def _run(target: Callable[..., None], arguments: tuple[Any, ...], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        target(*arguments, pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent closed the pipe
