"""Numbers and names in sentences for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 part`, `0 parts`, `3 parts`. noun: the singular of one that only takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(name: str) -> str:
    """A file's name as it can be shown, stored and sent: the bytes of another system's names may be no text at all."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
