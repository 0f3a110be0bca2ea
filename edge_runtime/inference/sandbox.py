"""A child process with limits, for model files that nobody vouches for.

A damaged model does not only raise: with tflite-runtime 114 of 120 truncated copies ended in SIGSEGV, and
ai-edge-litert dies on some too. So the file is opened in a child that may die: no core dump, bounded memory, CPU and
time, no files to write, no new privileges, a session of its own. Requests and answers are JSON lines; the end of
stderr helps to tell why a child died.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from edge_runtime.core.errors import ModelError, ProtocolError
from edge_runtime.process.child import LAST_WORDS_S, ChildProcess, Limits, how_it_ended, parents_channel
from edge_runtime.process.json_lines import MOST_BLOCK, HungUp, Lines, as_line

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]
BlockHandler = Callable[[Mapping[str, Any], bytes], tuple[Mapping[str, Any], bytes]]

MOST_ANSWER_BYTES = 4 << 20
MOST_BLOCK_BYTES = 256 << 20  # of tensors, one way
STDERR_TAIL = 2000
BLOCK = "block_bytes"  # key of a request or an answer: so many bytes follow it


class Child:
    """One limited child that runs `python -m module` and answers requests one by one. A context manager.

    It is started with the first request, and again with the next one after it died.
    """

    def __init__(self, module: str, limits: Limits | None = None) -> None:
        self._module = module
        self._limits = limits or Limits()
        self._process: ChildProcess | None = None
        self._stderr = -1

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer. Raises ModelError with the child's own sentence, or with one about how it died."""
        return self.exchange(request)[0]

    def exchange(self, request: Mapping[str, Any], block: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """The same with bytes behind the request, and those behind the answer."""
        process, within_s = self._process or self._start(), self._limits.timeout_s
        try:
            with contextlib.suppress(BrokenPipeError):
                process.send(as_line({**request, BLOCK: len(block)}) + block, within_s)
            lines = Lines(process.channel, within_s, MOST_ANSWER_BYTES)
            answer = lines.line()
            content = _whole_block(lines, answer.pop(BLOCK, 0))
        except (HungUp, ConnectionError) as err:
            raise ModelError(self._bury(process)) from err
        except TimeoutError as err:
            self.close()
            raise ModelError(f"no answer within {within_s:g} s, given up") from err
        except ProtocolError as err:
            self.close()
            raise ModelError(f"the probe talks nonsense: {err}") from err
        if "error" in answer:
            raise ModelError(str(answer["error"]))
        return answer, content

    def close(self) -> None:
        """End the child. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.end()
            os.close(self._stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> ChildProcess:
        limits = json.dumps([self._limits.memory_mb, self._limits.cpu_s])
        self._stderr, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._process = ChildProcess(self._module, limits, stderr=writing, own_session=True)
        finally:
            os.close(writing)
        return self._process

    def _bury(self, process: ChildProcess) -> str:
        """Why the child died, in a sentence."""
        code = process.exit_code(LAST_WORDS_S)
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._stderr, 1 << 16)
        self.close()
        return _cause_of_death(code, said.decode(errors="replace")[-STDERR_TAIL:], self._limits)


def _whole_block(lines: Lines, size: Any) -> bytes:
    if not isinstance(size, int) or not 0 <= size <= MOST_BLOCK_BYTES:
        raise ProtocolError(f"a block of {str(size)[:40]} bytes")
    return b"".join([lines.block(min(MOST_BLOCK, size - at)) for at in range(0, size, MOST_BLOCK)])


def serve_child(handle: Handler) -> None:
    """Main of a child module: take the limits, then answer requests until the parent goes away."""
    serve_blocks(lambda request, block: (handle(request), b""))


def serve_blocks(handle: BlockHandler) -> None:
    """The same for requests and answers with bytes behind them."""
    limits = Limits(*json.loads(sys.argv[1]))
    limits.take()
    requests = parents_channel().makefile("rwb")
    for line in requests:
        content = b""
        try:
            request = json.loads(line)
            block = requests.read(request.pop(BLOCK, 0))
            answer, content = handle(request, block)
        except ModelError as err:
            answer = {"error": str(err)}
        except MemoryError:
            answer = {"error": f"it needs more than the {limits.memory_mb} MB that a probe allows"}
        except Exception as err:  # the outermost loop of this process; the parent turns it into a sentence
            answer = {"error": f"the runtime failed on it: {type(err).__name__}: {' '.join(str(err).split())[:300]}"}
        requests.write(as_line({**answer, BLOCK: len(content)}) + content)
        requests.flush()


def _cause_of_death(code: int | None, said: str, limits: Limits) -> str:
    if "bad_alloc" in said or "MemoryError" in said or "Cannot allocate" in said:
        return f"it needs more than the {limits.memory_mb} MB that a probe allows"
    if code is None or code >= 0:
        last = said.strip().splitlines()[-1:] or [how_it_ended(code)]
        return f"the probe could not run: {last[0][:300]}"
    number = -code
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
