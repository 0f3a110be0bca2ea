"""One line of doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` is empty when there is nothing to do."""

    name: str
    state: Level
    detail: str
    fix: str = ""
