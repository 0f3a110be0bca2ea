"""One line of doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_runtime.core.errors import EdgeError

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` is empty when there is nothing to do."""

    name: str
    state: Level
    detail: str
    fix: str = ""


def of_error(name: str, state: Level, error: EdgeError, fix: str) -> Finding:
    """What an error says, with its own fix where it has one, else with this."""
    return Finding(name, state, error.what, error.fix or fix)
