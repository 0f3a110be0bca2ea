"""What a controller is mounted on: an encoder, two light beams, inputs, outputs and a UART, in simulated time.

A place on the belt is a signed number of quarter counts, as a quadrature encoder has them. Time passes in `run` only,
so that the world on top is the same for a controller paced to the wall clock and for one that a test moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

QUARTERS = 4  # of an encoder count
BAUD = 115_200


class Beam(IntEnum):
    EYE = 0
    CONFIRM = 1


class Input(IntEnum):
    """Inputs that are levels; high is good, so that a broken wire is bad."""

    AIR = 6
    BIN = 7


class What(IntEnum):
    EYE = 1
    CONFIRM = 2
    GATE = 3
    HEALTHY = 4
    DRIVER = 5  # RS-485 transmitter
    HEARD = 6  # the controller's UART has taken a zero, the end of a frame
    CRASH = 7


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that happened on the board."""

    what: What
    level: bool
    quarter: int  # place of the belt
    now_us: float
    us_after_edge: float  # since encoder A last rose
    heard: int  # bytes the controller's UART has taken until then


class Board(Protocol):
    @property
    def quarter(self) -> int: ...
    @property
    def now_us(self) -> float: ...
    def speed(self, quarters_per_s: float) -> None:
        """Negative: backwards; 0: the belt stands."""

    def shadow(self, beam: Beam, first: int, end: int) -> None:
        """The beam is dark while the belt is at a quarter in [first, end)."""

    def level(self, pin: Input, is_good: bool) -> None: ...
    def lose_encoder(self, is_lost: bool) -> None:
        """The belt moves on, counts do not."""

    def run(self, us: float) -> None: ...
    def reset(self) -> None:
        """Pull the reset line: what EEPROM holds stays."""

    def put(self, data: bytes) -> int:
        """Bytes for the controller's UART, which takes them at its baud rate. How many found room."""

    def take(self) -> bytes:
        """Bytes that it has sent."""

    def notes(self) -> list[Note]:
        """What happened since the last call, in order."""

    def close(self) -> None: ...
