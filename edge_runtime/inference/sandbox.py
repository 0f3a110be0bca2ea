"""A child process with limits, for model files that nobody vouches for.

A damaged model does not only raise: with tflite-runtime 114 of 120 truncated copies ended in SIGSEGV, and
ai-edge-litert dies on some too. So the file is opened in a child that may die: no core dump, bounded memory, CPU and
time, no files to write, no new privileges, a session of its own. Requests and answers are JSON lines on pipes; whatever
native code prints on stdout goes nowhere, and the end of stderr helps to tell why a child died.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_runtime.core.errors import ModelError

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]

MOST_ANSWER_BYTES = 4 << 20
STDERR_TAIL = 2000
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. The defaults fit the largest vision models of such a box with room to spare."""

    memory_mb: int = 3000  # address space; importing numpy and the runtime takes 600 MB of it
    cpu_s: int = 60
    timeout_s: float = 60.0  # for one request


class Child:
    """One limited child that runs `python -m module` and answers requests one by one. A context manager.

    It is started with the first request, and again with the next one after it died.
    """

    def __init__(self, module: str, limits: Limits | None = None) -> None:
        self._module = module
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = -1

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer. Raises ModelError with the child's own sentence, or with one about how it died."""
        process = self._process or self._start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        line = self._read_line(process)
        if line is None:
            raise ModelError(self._bury(process))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ModelError(str(answer["error"]))
        return answer

    def close(self) -> None:
        """End the child. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own, started by us
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        os.close(self._stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._stderr, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, json.dumps([self._limits.memory_mb, self._limits.cpu_s])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=writing,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        finally:
            os.close(writing)
        return self._process

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """One line of the child's answer, or None when it died, was silent for too long or talked too much."""
        assert process.stdout is not None
        out, until, line = process.stdout.fileno(), time.monotonic() + self._limits.timeout_s, bytearray()
        while (left := until - time.monotonic()) > 0 and len(line) < MOST_ANSWER_BYTES:
            if not select.select([out], [], [], left)[0]:
                break
            chunk = os.read(out, 1 << 16)
            if not chunk:
                return None
            line += chunk
            if line.endswith(b"\n"):
                return bytes(line)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGALRM)  # ends it; SIGALRM is how `_bury` knows that it was us
        return None

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        """Why the child died, in a sentence."""
        try:
            code = process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._stderr, 1 << 16)
        self.close()
        return _cause_of_death(code, said.decode(errors="replace")[-STDERR_TAIL:], self._limits)


def serve_child(handle: Handler) -> None:
    """Main of a child module: take the limits, then answer requests until the parent goes away."""
    memory_mb, cpu_s = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # native code prints what it likes, nobody parses it
    _limit(memory_mb, cpu_s)
    for line in sys.stdin.buffer:
        try:
            answer = handle(json.loads(line))
        except ModelError as err:
            answer = {"error": str(err)}
        except MemoryError:
            answer = {"error": f"it needs more than the {memory_mb} MB that a probe allows"}
        except Exception as err:  # the outermost loop of this process; the parent turns it into a sentence
            answer = {"error": f"the runtime failed on it: {type(err).__name__}: {' '.join(str(err).split())[:300]}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _limit(memory_mb: int, cpu_s: int) -> None:
    import ctypes
    import resource

    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_CPU, cpu_s),
    ):
        with contextlib.suppress(ValueError, OSError):  # a limit that is lower already is as good
            resource.setrlimit(what, (limit, limit + 1 if what == resource.RLIMIT_CPU else limit))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _cause_of_death(code: int, said: str, limits: Limits) -> str:
    if "bad_alloc" in said or "MemoryError" in said or "Cannot allocate" in said:
        return f"it needs more than the {limits.memory_mb} MB that a probe allows"
    if code >= 0:
        last = said.strip().splitlines()[-1:] or [f"exit code {code}"]
        return f"the probe could not run: {last[0][:300]}"
    number = -code
    if number == signal.SIGALRM:
        return f"no answer within {limits.timeout_s:g} s, given up"
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return f"it used more than {limits.cpu_s} s of CPU, or the system ended it for memory"
    crashes = {
        signal.SIGSEGV: "a segmentation fault",
        signal.SIGBUS: "a bus error",
        signal.SIGABRT: "an abort",
        signal.SIGFPE: "an arithmetic fault",
        signal.SIGILL: "an instruction that this processor does not have",
    }
    what = next((text for name, text in crashes.items() if name == number), f"signal {number}")
    return f"the file is damaged or hostile: it ends the TFLite runtime with {what}"
