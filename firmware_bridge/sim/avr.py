"""The real ATmega328P image under simavr, as a board: its pins, its UART and its time, to the CPU cycle.

Needs gcc, libsimavr-dev and an image built by `python -m firmware_bridge.mcu.build avr`. The shim around simavr
(`mcu/sim/avr_board.c`) is compiled once into a folder that the caller names.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from struct import Struct

from firmware_bridge.sim.board import BAUD, Beam, Input, Note, What

SOURCE = Path(__file__).parents[1] / "mcu" / "sim" / "avr_board.c"
HEADERS = Path("/usr/include/simavr")
PACKAGES = ("gcc", "libc6-dev", "simavr", "libsimavr-dev", "libelf-dev", "gcc-avr", "avr-libc")
CYCLES_PER_US = 16
ROOM = 8192  # bytes, or notes, at a call
_NOTE = Struct("<qqqiBBxx")


class AvrMissing(Exception):
    """What is needed to run the image is not installed. The text says what to install."""


def why_missing() -> str | None:
    """What to install before an image can be built and run; None when all is there."""
    missing = [tool for tool in ("gcc", "avr-gcc") if shutil.which(tool) is None]
    missing += [str(header) for header in (HEADERS / "sim_avr.h", Path("/usr/lib/avr/include/avr/io.h"))
                if not header.exists()]  # fmt: skip
    return f"{', '.join(missing)} missing: apt-get install {' '.join(PACKAGES)}" if missing else None


def build_shim(folder: Path) -> Path:
    """Compile the shim into `folder` unless a current one is there. Raises AvrMissing with the compiler's words."""
    library = folder / "avr_board.so"
    if library.exists() and library.stat().st_mtime_ns >= SOURCE.stat().st_mtime_ns:
        return library
    words = ["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{HEADERS}", str(SOURCE),
             "-o", f"{library}.new", "-lsimavr"]  # fmt: skip
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as err:
        raise AvrMissing(f"cannot compile {SOURCE.name}: {err}; apt-get install {' '.join(PACKAGES)}") from err
    if done.returncode:
        raise AvrMissing(f"cannot compile {SOURCE.name}; apt-get install {' '.join(PACKAGES)}\n{done.stderr}")
    Path(f"{library}.new").replace(library)
    return library


@cache
def _load(library: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library))
    board, c_int, i64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    table = {
        "board_new": (board, [ctypes.c_char_p, ctypes.c_uint32]),
        "board_free": (None, [board]),
        "board_speed": (None, [board, ctypes.c_int32]),
        "board_shadow": (c_int, [board, c_int, i64, i64]),
        "board_pin": (None, [board, ctypes.c_char, c_int, c_int]),
        "board_run": (c_int, [board, ctypes.c_uint64]),
        "board_lose_encoder": (None, [board, c_int]),
        "board_reset": (None, [board]),
        "board_put": (c_int, [board, ctypes.c_char_p, c_int]),
        "board_take": (c_int, [board, ctypes.c_char_p, c_int]),
        "board_log": (c_int, [board, ctypes.c_char_p, c_int]),
        "board_quarter": (i64, [board]),
        "board_cycle": (i64, [board]),
        "board_lost": (i64, [board]),
    }
    for name, (result, arguments) in table.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class AvrBoard:
    """See `board.Board`. speaks_modbus: the strap that selects the second transport."""

    def __init__(self, elf: Path, library: Path, *, speaks_modbus: bool = False, baud: int = BAUD) -> None:
        self._lib = _load(library)
        self._board = self._lib.board_new(str(elf).encode(), baud)
        if not self._board:
            raise AvrMissing(f"simavr cannot load {elf}: build it with `python -m firmware_bridge.mcu.build avr`")
        self._lib.board_pin(self._board, b"C", 0, not speaks_modbus)
        self._bytes = ctypes.create_string_buffer(ROOM)
        self._records = ctypes.create_string_buffer(ROOM * _NOTE.size)

    @property
    def quarter(self) -> int:
        return int(self._lib.board_quarter(self._board))

    @property
    def now_us(self) -> float:
        return float(self._lib.board_cycle(self._board)) / CYCLES_PER_US

    def speed(self, quarters_per_s: float) -> None:
        self._lib.board_speed(self._board, round(quarters_per_s))

    def shadow(self, beam: Beam, first: int, end: int) -> None:
        if not self._lib.board_shadow(self._board, beam, first, end):
            raise ValueError("too many shadows on the belt at once")

    def level(self, pin: Input, is_good: bool) -> None:
        self._lib.board_pin(self._board, b"D", pin, is_good)

    def lose_encoder(self, is_lost: bool) -> None:
        self._lib.board_lose_encoder(self._board, is_lost)

    def run(self, us: float) -> None:
        if us > 0 and not self._lib.board_run(self._board, round(us * CYCLES_PER_US)):
            raise RuntimeError(f"the simulated CPU stopped at {self.now_us:.0f} us")

    def reset(self) -> None:
        self._lib.board_reset(self._board)

    def put(self, data: bytes) -> int:
        return int(self._lib.board_put(self._board, data, len(data)))

    def take(self) -> bytes:
        count = self._lib.board_take(self._board, self._bytes, ROOM)
        return ctypes.string_at(self._bytes, count)

    def notes(self) -> list[Note]:
        count = self._lib.board_log(self._board, self._records, ROOM)
        if not count:
            return []
        rows = _NOTE.iter_unpack(ctypes.string_at(self._records, count * _NOTE.size))
        return [
            Note(What(what), bool(level), quarter, cycle / CYCLES_PER_US, since / CYCLES_PER_US, heard)
            for cycle, quarter, heard, since, what, level in rows
        ]

    @property
    def lost(self) -> int:
        """Bytes and notes that nobody took in time; anything but 0 spoils a run."""
        return int(self._lib.board_lost(self._board))

    def close(self) -> None:
        board, self._board = self._board, None
        if board:
            self._lib.board_free(board)
