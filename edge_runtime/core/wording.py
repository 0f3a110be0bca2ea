"""Numbers in sentences for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 part`, `0 parts`, `3 parts`. noun: the singular of one that only takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
