"""Arithmetic of counters that wrap, as the controller has it: the difference of two is read as a signed number."""

from __future__ import annotations

U16 = 0xFFFF
U32 = 0xFFFF_FFFF


def since16(now: int, then: int) -> int:
    """How far `now` is past `then` on a 16-bit counter, -32768..32767."""
    return ((now - then + 0x8000) & U16) - 0x8000


def since32(now: int, then: int) -> int:
    """How far `now` is past `then` on a 32-bit counter; negative when `now` comes first."""
    return ((now - then + 0x8000_0000) & U32) - 0x8000_0000
