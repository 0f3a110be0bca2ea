"""Child processes for code that may hang or die: how they are started, talked to, limited, and ended.

A child is `python -m MODULE` with one socket as its standard input. Requests and answers go over it both ways, and it
is the string that holds the child: it closes when the parent ends it or dies, whichever way, and the child ends. What
libraries print on standard output goes nowhere. How long a silence means that it hangs is for each parent to say.

Not PR_SET_PDEATHSIG: that fires when the thread that started the child ends. Not `multiprocessing`: it imports the
parent's main module into the child, and keeps a process of its own to track resources.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = str(Path(__file__).parents[2])  # where the product's packages are found
PIECE = 1 << 16
LAST_WORDS_S = 2.0  # between the end of what a child says and its exit code
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


class ChildEnded(Exception):
    """It says no more; the text says how it ended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. The defaults fit the largest vision models of such a box with room to spare."""

    memory_mb: int = 3000  # address space; importing numpy and the runtime takes 600 MB of it
    cpu_s: int = 60
    timeout_s: float = 60.0  # for one request

    def take(self) -> None:
        """In the child: no more than that from now on, no core dump, no files to write, no new privileges."""
        import ctypes
        import resource

        for what, limit in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_AS, self.memory_mb << 20),
            (resource.RLIMIT_CPU, self.cpu_s),
        ):
            with contextlib.suppress(ValueError, OSError):  # a limit that is lower already is as good
                resource.setrlimit(what, (limit, limit + 1 if what == resource.RLIMIT_CPU else limit))
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


class ChildProcess:
    """The parent's handle on one child, from its start to its end. `channel` is the parent's end of the socket."""

    def __init__(
        self, module: str, *words: str, stderr: int | None = subprocess.DEVNULL, own_session: bool = False
    ) -> None:
        """words: the child's arguments. stderr: a descriptor; None: the parent's. own_session: what the child starts is
        killed with it, and the terminal's signals do not reach it. Raises OSError."""
        self.channel, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
        self._own_session = own_session
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, *words],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env={**os.environ, "PYTHONPATH": path},
                    start_new_session=own_session,
                )
            except OSError:
                self.channel.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, data: bytes, within_s: float) -> None:
        """All of it. Raises OSError, TimeoutError among them."""
        self.channel.settimeout(within_s)
        self.channel.sendall(data)

    def hear(self, within_s: float) -> bytes:
        """What it says, empty when nothing comes in time. Raises ChildEnded."""
        self.channel.settimeout(within_s)
        try:
            data = self.channel.recv(PIECE)
        except (TimeoutError, BlockingIOError):
            return b""
        except OSError:
            data = b""
        if not data:
            raise ChildEnded(how_it_ended(self.exit_code(LAST_WORDS_S)))
        return data

    def exit_code(self, within_s: float) -> int | None:
        """Negative: the signal that ended it. None while it runs."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self, within_s: float = 0.0) -> None:
        """Close the channel, give the child so long to end by itself, then kill it. Safe to call twice."""
        self.channel.close()
        if within_s and self.exit_code(within_s) is not None:
            return
        if self._own_session and self._process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its end"
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


# -- in the child -----------------------------------------------------------------------------------------------------


def parents_channel() -> socket.socket:
    """The child's end of the socket; standard input is empty from here on, also for what the child starts."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return channel


def outlive_interrupts() -> None:
    """Ignore SIGINT and SIGTERM, which reach a whole terminal or control group at once: the parent decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
