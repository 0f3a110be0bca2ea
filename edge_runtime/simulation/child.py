"""A process of the simulated line, held by a pipe: it ends when the pipe closes, by `stop` or because its parent died.

It ignores SIGINT and SIGTERM: the daemon still wants frames and a controller while it drains.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import DeviceError
from edge_runtime.process.child import ChildProcess, outlive_interrupts, parents_channel

MODULE = "edge_runtime.simulation.child"
READY_WITHIN_S = 60.0  # a box that is starting everything at once, on a slow card
ANSWER_WITHIN_S = 3.0  # a daemon that asks at its end has five seconds in all
END_WITHIN_S = 2.0


class SimChild:
    """The parent's handle. The child's main function is given `arguments` and its end of the pipe."""

    def __init__(self, name: str, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._name, self._target, self._arguments = name, target, arguments
        self._process: ChildProcess | None = None
        self._pipe: Connection | None = None
        self._greeting: Any = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and return at once; `wait_ready` says when it is of use. Raises DeviceError."""
        try:
            self._process = ChildProcess(MODULE, stderr=None)
            self._pipe, self._greeting = Connection(self._process.channel.detach()), None
            self._pipe.send(sys.path)  # first: what follows may need it
            self._pipe.send((self._target, self._arguments))
        except OSError as err:
            raise DeviceError(f"{self._name} cannot be started: {err.strerror or err}") from err

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
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.end(END_WITHIN_S)

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


def main() -> None:
    """The child: `python -m edge_runtime.simulation.child`."""
    outlive_interrupts()
    pipe = Connection(parents_channel().detach())
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent closed the pipe
        sys.path[:] = pipe.recv()
        target, arguments = pipe.recv()
        target(*arguments, pipe)


if __name__ == "__main__":
    main()
