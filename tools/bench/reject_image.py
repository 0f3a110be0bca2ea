"""The AVR image of this checkout, built into a folder of the caller's."""

from __future__ import annotations

from pathlib import Path


def build_image(folder: Path) -> Path:
    """Path of the ELF file. Raises BuildError, with what to install in its text."""
    from firmware_bridge.mcu.build import build_avr

    elf, _ = build_avr(folder)
    return elf
