"""The two ways in which the blocks travel: the box asks the PLC (client), or the PLC asks the box (server).

Both carry the same blocks at the same addresses for a `Desk`, which knows what they mean. No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from firmware_bridge.modbus.client import Answered, Failed, Failure, RtuClient
from firmware_bridge.modbus.registers import BOX, PLC, SETUP, BoxBlock, BoxStatus, SetupBlock
from firmware_bridge.modbus.rtu import MS, ExceptionCode, Line, Request, read_request, write_request
from firmware_bridge.modbus.server import Refused, RtuServer

POLL_NS = 10 * MS  # less than the wire time of the two requests at 115200: polling is as fast as the line
ASK_AGAIN_NS = 50 * MS  # while nobody answers
REFUSED_AGAIN_NS = 1000 * MS  # somebody may be loading another program


class Desk(Protocol):
    """Who reads and fills the blocks."""

    def box_block(self, now_ns: int) -> BoxBlock:
        """What the far side shall see now."""

    @property
    def may_tell(self) -> bool:
        """Whether the far side is alive and ours: before that nothing is written, a running line is not disarmed."""

    def on_plc_block(self, words: Sequence[int], sent_ns: int, now_ns: int) -> None:
        """The far side's block, as it was at some time between the two."""

    def on_told(self, block: BoxBlock, now_ns: int) -> None:
        """The far side has this block."""

    def on_trouble(self, text: str, now_ns: int) -> None:
        """No good answer this time."""

    def on_refused(self, text: str) -> None:
        """An answer that says it will not work like this."""

    def on_setup_settled(self, now_ns: int) -> None:
        """The far side holds our setup, or has one of its own."""


class Side(Protocol):
    """One of the two below."""

    has_setup: bool

    @property
    def adapter_problem(self) -> str:
        """What to set when the RS-485 adapter is not as the station says."""

    def opened(self, now_ns: int) -> None: ...
    def restarted(self) -> None: ...
    def feed(self, data: bytes, now_ns: int) -> None: ...
    def tick(self, now_ns: int) -> None: ...
    def take_output(self) -> bytes: ...
    def next_due_ns(self, now_ns: int) -> int: ...
    def wire_counts(self) -> dict[str, int]: ...


class Purpose(Enum):
    READ_PLC = "read PLC block"
    WRITE_BOX = "write box block"
    READ_SETUP = "read setup"
    WRITE_SETUP = "write setup"


class ClientSide:
    """The box polls. A write is always followed by a read, so that news of a restart come before the next verdict."""

    def __init__(self, unit: int, line: Line, setup: SetupBlock, desk: Desk, *, echo: bool, poll_ns: int) -> None:
        self.client = RtuClient(line, echo=echo)
        self.has_setup = False
        self._unit = unit
        self._setup = tuple(setup.pack())
        self._desk = desk
        self._poll_ns = poll_ns
        self._purpose = Purpose.READ_PLC
        self._read_ns = 0
        self._again_ns = 0  # no sooner after a failure
        self._has_met = False  # a PLC block was read since the port was opened
        self._must_read = True
        self._must_disarm = False  # before the setup is written
        self._sent_box: BoxBlock | None = None
        self._told: BoxBlock | None = None
        self._tries = 0  # of writing the setup

    def opened(self, now_ns: int) -> None:
        self.client.reset(now_ns)
        self._has_met = False
        self._again_ns = 0
        self.restarted()

    def restarted(self) -> None:
        """Another PLC, or a fresh one: it holds nothing of ours."""
        self.has_setup = False
        self._must_disarm = False
        self._told = None
        self._must_read = True
        self._tries = 0

    def feed(self, data: bytes, now_ns: int) -> None:
        self.client.feed(data, now_ns)
        self._go_on(now_ns)

    def tick(self, now_ns: int) -> None:
        self.client.tick(now_ns)
        self._go_on(now_ns)

    def take_output(self) -> bytes:
        return self.client.take_output()

    def next_due_ns(self, now_ns: int) -> int:
        due = self.client.next_due_ns()
        if due is not None:
            return due
        if self._wanted(now_ns) is not None:
            return self.client.free_ns
        wishes = self._again_ns if self._again_ns > now_ns else min(self._read_ns + self._poll_ns, _next_beat(now_ns))
        return max(self.client.free_ns, wishes)

    def wire_counts(self) -> dict[str, int]:
        return {**self.client.counts, **self.client.wire_counts}

    @property
    def adapter_problem(self) -> str:
        return self.client.echo_problem

    def _go_on(self, now_ns: int) -> None:
        answer = self.client.take_answer()
        if isinstance(answer, Answered):
            self._again_ns = 0
            self._on_answer(answer)
        elif answer is not None:
            self._on_failure(answer)
        if self.client.is_free(now_ns):
            purpose = self._wanted(now_ns)
            if purpose is not None:
                self._ask(purpose, now_ns)

    def _wanted(self, now_ns: int) -> Purpose | None:
        """What to ask next."""
        if now_ns < self._again_ns:
            return None
        if not self._has_met or self._must_read or not self._desk.may_tell:
            is_due = self._must_read or now_ns - self._read_ns >= self._poll_ns
            return Purpose.READ_PLC if is_due else None
        if not self.has_setup:
            if not self._must_disarm:
                return Purpose.READ_SETUP
            return Purpose.WRITE_SETUP if self._is_told_disarmed() else Purpose.WRITE_BOX
        if self._is_news(self._desk.box_block(now_ns)):
            return Purpose.WRITE_BOX
        return Purpose.READ_PLC if now_ns - self._read_ns >= self._poll_ns else None

    def _is_told_disarmed(self) -> bool:
        return self._told is not None and not self._told.status & BoxStatus.ARMED

    def _is_news(self, block: BoxBlock) -> bool:
        """Echoes and BUSY travel with the next heartbeat."""
        told = self._told
        return told is None or (block.heartbeat, block.status & ~BoxStatus.BUSY, block.result_seq, block.verdict) != (
            told.heartbeat, told.status & ~BoxStatus.BUSY, told.result_seq, told.verdict)  # fmt: skip

    def _ask(self, purpose: Purpose, now_ns: int) -> None:
        self._purpose = purpose
        self.client.ask(self._request(purpose, now_ns), now_ns)

    def _request(self, purpose: Purpose, now_ns: int) -> Request:
        match purpose:
            case Purpose.READ_PLC:
                self._read_ns = now_ns
                return read_request(self._unit, PLC.base, PLC.size)
            case Purpose.WRITE_BOX:
                self._sent_box = self._desk.box_block(now_ns)
                return write_request(self._unit, BOX.base, self._sent_box.pack())
            case Purpose.READ_SETUP:
                return read_request(self._unit, SETUP.base, SETUP.size)
            case Purpose.WRITE_SETUP:
                return write_request(self._unit, SETUP.base, self._setup)

    def _on_answer(self, answer: Answered) -> None:
        match self._purpose:
            case Purpose.READ_PLC:
                self._has_met, self._must_read = True, False
                self._desk.on_plc_block(answer.values, answer.sent_ns, answer.now_ns)
            case Purpose.WRITE_BOX:
                assert self._sent_box is not None
                self._told, self._must_read = self._sent_box, True
                self._desk.on_told(self._told, answer.now_ns)
            case Purpose.READ_SETUP:
                self._compare_setup(answer)
            case Purpose.WRITE_SETUP:
                self._must_disarm = False  # read it back

    def _compare_setup(self, answer: Answered) -> None:
        if answer.values == self._setup:
            self._settle_setup(answer.now_ns)
        elif self._tries >= 3:
            self._desk.on_refused("the controller keeps another setup than it was given: mend [controller] in the "
                                  "station file, or flash the firmware of this release")  # fmt: skip
            self._again_ns, self._tries = answer.now_ns + REFUSED_AGAIN_NS, 0
        else:
            self._tries += 1
            self._must_disarm = True

    def _settle_setup(self, now_ns: int) -> None:
        self.has_setup, self._must_read = True, True
        self._desk.on_setup_settled(now_ns)

    def _on_failure(self, failed: Failed) -> None:
        self._must_read = True
        if failed.failure is not Failure.EXCEPTION:
            self._desk.on_trouble(failed.text, failed.now_ns)
            return
        if self._purpose is Purpose.READ_SETUP and failed.code in (
            ExceptionCode.ILLEGAL_ADDRESS, ExceptionCode.ILLEGAL_FUNCTION
        ):  # fmt: skip
            self._settle_setup(failed.now_ns)  # a PLC whose program knows the machine by itself
        elif failed.code == ExceptionCode.BUSY:
            self._told = None  # armed, by somebody else too: tell it again to disarm
            self._again_ns = failed.now_ns + ASK_AGAIN_NS
        else:
            self._again_ns = failed.now_ns + REFUSED_AGAIN_NS
            self._desk.on_refused(f"{failed.text} ({self._purpose.value}): {self._fix()}")

    def _fix(self) -> str:
        if self._purpose is Purpose.WRITE_SETUP:
            return "mend [controller] in the station file"
        return f"lay out the PLC's registers as in REGISTERS.md, box block at {BOX.base}, PLC block at {PLC.base}"


class ServerSide:
    """The PLC polls. The box block is made at the moment it is read."""

    has_setup = True  # the PLC's program knows the machine; our values are there to be read

    def __init__(self, unit: int, line: Line, setup: SetupBlock, desk: Desk, *, echo: bool) -> None:
        self.server = RtuServer(unit, line, self, echo=echo)
        self._setup = setup.pack()
        self._plc = [0] * PLC.size
        self._desk = desk
        self._now_ns = 0
        self._is_met = False
        self._told_about: tuple[int, int] = (0, 0)

    def opened(self, now_ns: int) -> None:
        self.server.reset()
        self._plc = [0] * PLC.size  # what an earlier PLC wrote says nothing of the one that is there now
        self._is_met = False

    def restarted(self) -> None:
        pass

    def feed(self, data: bytes, now_ns: int) -> None:
        self._now_ns = now_ns
        self.server.feed(data, now_ns)
        if not self._is_met:
            self._look_for_trouble(now_ns)

    def tick(self, now_ns: int) -> None:
        pass

    def take_output(self) -> bytes:
        return self.server.take_output()

    def next_due_ns(self, now_ns: int) -> int:
        return now_ns + 3600 * 1000 * MS  # a server waits

    def wire_counts(self) -> dict[str, int]:
        return {**self.server.counts, **self.server.wire_counts}

    @property
    def adapter_problem(self) -> str:
        return self.server.echo_problem

    def read(self, address: int, count: int) -> Sequence[int]:
        """Registers for the PLC. Raises Refused outside of the blocks."""
        last = address + count - 1
        for block in (BOX, PLC, SETUP):
            if address in block and last in block:
                words = self._words(block.name)
                return words[address - block.base :][:count]
        raise Refused(ExceptionCode.ILLEGAL_ADDRESS)

    def write(self, address: int, values: Sequence[int]) -> None:
        """Registers from the PLC. Raises Refused outside of its block."""
        if address not in PLC or address + len(values) - 1 not in PLC:
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        at = address - PLC.base
        self._plc[at : at + len(values)] = values
        self._is_met = True
        self._desk.on_plc_block(self._plc, self._now_ns, self._now_ns)

    def _words(self, name: str) -> list[int]:
        if name == PLC.name:
            return self._plc
        if name == SETUP.name:
            return self._setup
        block = self._desk.box_block(self._now_ns)
        self._desk.on_told(block, self._now_ns)
        return block.pack()

    def _look_for_trouble(self, now_ns: int) -> None:
        """Name the likely cause while nobody has written a block."""
        server = self.server
        counts = (sum(server.foreign.values()), server.counts["bad_crc"])
        if counts == self._told_about or server.counts["requests"]:
            return
        self._told_about = counts
        if server.foreign:
            unit = max(server.foreign, key=lambda unit: server.foreign[unit])
            self._desk.on_trouble(f"requests for unit {unit} are heard, this box is unit {server.unit}: set the unit "
                                  "id in the PLC or [controller] unit", now_ns)  # fmt: skip
        elif server.counts["bad_crc"]:
            self._desk.on_trouble("bytes are heard but no good frame: check baud rate and parity at both ends", now_ns)


def _next_beat(now_ns: int) -> int:
    return (now_ns // BEAT_NS + 1) * BEAT_NS


BEAT_NS = 100 * MS  # the heartbeat of the box block; part of the map's contract
