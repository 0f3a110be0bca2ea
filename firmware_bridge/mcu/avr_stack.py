"""How deep an AVR image's stack can grow, read from its disassembly: pushes, frames, calls.

The deepest chain of calls from `main`, and on top of it the deepest interrupt: interrupts do not nest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CALL_BYTES = 2  # the return address
_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_CALL = re.compile(r"\t(r?call|r?jmp)\t.*<([^+>]+)>")
_SHARED_PUSHES = 18  # of __prologue_saves__ (-mcall-prologues), two bytes of code each; entered behind those not wanted
_SHARED = re.compile(r"\tr?jmp\t.*<__prologue_saves__(?:\+0x([0-9a-f]+))?>")
_LOAD = re.compile(r"\tldi\t(r26|r27), 0x([0-9A-Fa-f]+)")  # the frame, for __prologue_saves__
_FRAME = re.compile(r"\t(sbiw|subi|sbci)\t(r28|r29), 0x([0-9A-Fa-f]+)")


@dataclass(slots=True)
class _Function:
    own: int = 0
    loaded: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)  # bytes that the call itself takes


def deepest(disassembly: str) -> int:
    """Bytes of stack at most. Raises ValueError when the image calls through a pointer, or itself."""
    functions = _read(disassembly)
    interrupts = [_depth(functions, name, ()) for name in functions if name.startswith("__vector_")]
    return 2 * CALL_BYTES + _depth(functions, "main", ()) + max(interrupts, default=0)


def _read(disassembly: str) -> dict[str, _Function]:
    functions: dict[str, _Function] = {}
    name = ""
    for line in disassembly.splitlines():
        if found := _FUNCTION.match(line):
            name = found[1]
            functions[name] = _Function()
        elif name:
            _take(functions[name], name, line)
    return functions


def _take(function: _Function, name: str, line: str) -> None:
    if "\tpush\t" in line:
        function.own += 1
    elif "\trcall\t.+0 " in line or line.rstrip().endswith("\trcall\t.+0"):
        function.own += CALL_BYTES  # reserves two bytes
    elif found := _LOAD.search(line):
        function.loaded.setdefault(found[1], int(found[2], 16))
    elif found := _SHARED.search(line):
        frame = function.loaded.get("r26", 0) + 256 * function.loaded.get("r27", 0)
        function.own += _SHARED_PUSHES - int(found[1] or "0", 16) // 2 + frame
    elif "\ticall" in line or "\tijmp" in line:
        if not name.startswith("__"):
            raise ValueError(f"{name} calls through a pointer: its depth is not known")
    elif found := _FRAME.search(line):
        value = int(found[3], 16)
        if found[1] == "sbiw" or (found[1] == "subi" and value < 0x80):
            function.own += value  # a frame; negative ones give it back
        elif found[1] == "sbci" and value < 0x80:
            function.own += 256 * value
    elif (found := _CALL.search(line)) and found[2] != name:
        function.calls[found[2]] = max(function.calls.get(found[2], 0), CALL_BYTES if "call" in found[1] else 0)


def _depth(functions: dict[str, _Function], name: str, above: tuple[str, ...]) -> int:
    if name in above:
        raise ValueError(f"{name} calls itself: its depth is not known")
    function = functions.get(name)
    if function is None:
        return 0
    return function.own + max((cost + _depth(functions, to, (*above, name)) for to, cost in function.calls.items()),
                              default=0)  # fmt: skip
