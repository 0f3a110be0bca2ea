"""Look at a PLC's registers without being its host; see `watch`. Both roles; every register by its name.

As client only reads. As server the box block that the PLC reads says: alive, not ready, not armed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import Any

from firmware_bridge.modbus.client import Answered, Failed, Failure, RtuClient
from firmware_bridge.modbus.registers import (
    BLOCKS,
    BOX,
    MAP_VERSION,
    PLC,
    SETUP,
    Block,
    BoxBlock,
    BoxStatus,
    MapError,
    PlcControl,
    Reason,
    ResultAnswer,
    SetupBlock,
    VerdictCode,
)
from firmware_bridge.modbus.rtu import ExceptionCode, Line, read_request
from firmware_bridge.modbus.server import Refused, RtuServer
from firmware_bridge.modbus.sides import BEAT_NS
from firmware_bridge.watch import TRIPS_KEPT, News
from firmware_bridge.wrap import U16

_CODES: Mapping[tuple[str, str], type[IntEnum | IntFlag]] = {
    ("box", "status"): BoxStatus,
    ("box", "verdict"): VerdictCode,
    ("box", "reason"): Reason,
    ("PLC", "control"): PlcControl,
    ("PLC", "result_answer"): ResultAnswer,
    ("setup", "default_verdict"): VerdictCode,
}
_ALWAYS_MOVING = ("heartbeat", "encoder_now")  # no news
SILENT_NS = 2_000_000_000


def decoded(block: Block, words: Sequence[int]) -> dict[str, Any]:
    """Registers of a block by name, codes by their names. Raises MapError."""
    return {name: _named(block, name, value) for name, value in block.unpack(words).items()}


def _named(block: Block, name: str, value: Any) -> Any:
    kind = _CODES.get((block.name, name))
    if kind is None:
        return [list(entry) for entry in value] if isinstance(value, tuple) else value
    if issubclass(kind, IntFlag):
        return [bit.name for bit in kind if bit & value]
    return kind(value).name if value in kind._value2member_map_ else value


class _Blocks:
    """What was read, and what changed."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.news: list[News] = []
        self._problems: dict[str, str] = {}

    @property
    def problem(self) -> str:
        return "; ".join(filter(None, self._problems.values()))

    def see(self, block: Block, words: Sequence[int], now_ns: int) -> None:
        try:
            now = decoded(block, words)
        except MapError as err:
            self._problems[block.name] = f"{err}: is it laid out as in REGISTERS.md, at {block.base}?"
            return
        version = now.get("map_version", MAP_VERSION)
        self._problems[block.name] = "" if version == MAP_VERSION else (
            f"the {block.name} block has register map {version:04x}, this release {MAP_VERSION:04x}: set the PLC's "
            "program to the table in REGISTERS.md of this release, or reflash the controller")  # fmt: skip
        before = self.known.get(block.name)
        self.known[block.name] = now
        if before is None:
            return
        for name, value in now.items():
            if value != before[name] and name not in _ALWAYS_MOVING:
                self.news.append(News(now_ns, f"{block.name}.{name}", _change(before[name], value)))

    def take_news(self) -> list[News]:
        news, self.news = self.news, []
        return news


def _change(before: Any, now: Any) -> str:
    """`a -> b`; of a ring only the entries that changed."""
    if isinstance(now, list) and now and isinstance(now[0], list):
        return "  ".join(f"[{at}] {old} -> {new}" for at, (old, new) in enumerate(zip(before, now, strict=True))
                         if old != new)  # fmt: skip
    return f"{_show(before)} -> {_show(now)}"


def _show(value: Any) -> str:
    return "+".join(value) or "none" if isinstance(value, list) else str(value)


class PlcWatch:
    """The box asks: the three blocks in turn."""

    def __init__(self, line: Line, unit: int, *, echo: bool = False) -> None:
        self.trips_ns: deque[int] = deque(maxlen=TRIPS_KEPT)
        self._client = RtuClient(line, echo=echo)
        self._unit = unit
        self._blocks = _Blocks()
        self._at = 0
        self._absent: set[str] = set()
        self._trouble = f"unit {unit} does not answer yet"

    @property
    def is_complete(self) -> bool:
        return {*self._blocks.known, *self._absent} >= {block.name for block in BLOCKS}

    @property
    def problem(self) -> str:
        return self._trouble or self._blocks.problem

    @property
    def adapter_problem(self) -> str:
        return self._client.echo_problem

    def opened(self, now_ns: int) -> None:
        self._client.reset(now_ns)

    def feed(self, data: bytes, now_ns: int) -> None:
        self._client.feed(data, now_ns)
        self._go_on(now_ns)

    def tick(self, now_ns: int) -> None:
        self._client.tick(now_ns)
        self._go_on(now_ns)

    def take_output(self) -> bytes:
        return self._client.take_output()

    def take_news(self) -> list[News]:
        return self._blocks.take_news()

    def state(self) -> dict[str, Any]:
        return {
            "protocol": "modbus",
            "role": "client",
            "unit": self._unit,
            "release_version": f"{MAP_VERSION:04x}",
            "problem": self.problem,
            "adapter_problem": self.adapter_problem,
            "blocks": self._blocks.known,
            "absent": sorted(self._absent),
            "counters": dict(self._client.counts),
        }

    def _go_on(self, now_ns: int) -> None:
        block = BLOCKS[self._at]
        answer = self._client.take_answer()
        if isinstance(answer, Answered):
            self._trouble = ""
            if block is PLC:
                self.trips_ns.append(answer.now_ns - answer.sent_ns)
            if block is BOX and not any(answer.values):  # no box has written it since the PLC started
                self._absent.add(block.name)
            else:
                self._absent.discard(block.name)
                self._blocks.see(block, answer.values, now_ns)
            self._at = (self._at + 1) % len(BLOCKS)
        elif isinstance(answer, Failed):
            self._on_failure(block, answer)
        if self._client.is_free(now_ns):
            block = BLOCKS[self._at]
            self._client.ask(read_request(self._unit, block.base, block.size), now_ns)

    def _on_failure(self, block: Block, failed: Failed) -> None:
        is_there = failed.failure is Failure.EXCEPTION
        if is_there and block is not PLC:  # a PLC whose program knows the machine, or keeps the box block elsewhere
            self._trouble = ""
            self._absent.add(block.name)
            self._at = (self._at + 1) % len(BLOCKS)
            return
        fix = f": lay out the registers as in REGISTERS.md, PLC block at {PLC.base}" if is_there else ""
        self._trouble = failed.text + fix


class BoxWatch:
    """The PLC asks. What it writes is shown; what it reads is an idle box."""

    def __init__(self, line: Line, unit: int, setup: SetupBlock, *, echo: bool = False) -> None:
        self.trips_ns: deque[int] = deque(maxlen=TRIPS_KEPT)
        self._server = RtuServer(unit, line, self, echo=echo)
        self._setup = setup.pack()
        self._plc = [0] * PLC.size
        self._blocks = _Blocks()
        self._now_ns = self._heard_ns = 0
        self._is_written = False

    @property
    def is_complete(self) -> bool:
        return PLC.name in self._blocks.known

    @property
    def problem(self) -> str:
        server = self._server
        if self._is_written:
            silent = self._now_ns - self._heard_ns > SILENT_NS
            return "the PLC has stopped asking" if silent else self._blocks.problem
        if server.foreign:
            unit = max(server.foreign, key=lambda unit: server.foreign[unit])
            return (f"requests for unit {unit} are heard, this box is unit {server.unit}: set the unit id in the "
                    "PLC or [controller] unit")  # fmt: skip
        if server.counts["bad_crc"] or server.counts["noise_bytes"]:
            return "bytes are heard but no good frame: check baud rate and parity at both ends"
        return f"no PLC has written its block yet: it writes {PLC.size} registers from {PLC.base}"

    @property
    def adapter_problem(self) -> str:
        return self._server.echo_problem

    def opened(self, now_ns: int) -> None:
        self._server.reset()

    def feed(self, data: bytes, now_ns: int) -> None:
        self._now_ns = now_ns
        self._server.feed(data, now_ns)

    def tick(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def take_output(self) -> bytes:
        return self._server.take_output()

    def take_news(self) -> list[News]:
        return self._blocks.take_news()

    def state(self) -> dict[str, Any]:
        return {
            "protocol": "modbus",
            "role": "server",
            "unit": self._server.unit,
            "release_version": f"{MAP_VERSION:04x}",
            "problem": self.problem,
            "adapter_problem": self.adapter_problem,
            "blocks": {**self._blocks.known, BOX.name: decoded(BOX, self._box())},
            "absent": [],
            "counters": dict(self._server.counts),
        }

    def read(self, address: int, count: int) -> Sequence[int]:
        """For the server. Raises Refused."""
        for block, words in ((BOX, self._box()), (PLC, self._plc), (SETUP, self._setup)):
            if address in block and address + count - 1 in block:
                return words[address - block.base :][:count]
        raise Refused(ExceptionCode.ILLEGAL_ADDRESS)

    def write(self, address: int, values: Sequence[int]) -> None:
        """For the server. Raises Refused."""
        if address not in PLC or address + len(values) - 1 not in PLC:
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        at = address - PLC.base
        self._plc[at : at + len(values)] = values
        self._is_written, self._heard_ns = True, self._now_ns
        self._blocks.see(PLC, self._plc, self._now_ns)

    def _box(self) -> list[int]:
        return BoxBlock(heartbeat=(self._now_ns // BEAT_NS) & U16).pack()
