"""What `doctor` says, asked once for all who look and not again while it is fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.core.errors import EdgeError
from edge_runtime.serve.pages.own_commands import OwnCommands

FRESH_S = 30.0  # doctor takes some seconds of what the line leaves
WITHIN_S = 120.0  # at idle priority on a busy box
WORST_FIRST = {"fail": 0, "warn": 1, "ok": 2}


class HealthWatch:
    """Within the event loop."""

    def __init__(self, commands: OwnCommands) -> None:
        self._commands = commands
        self._findings: Sequence[Mapping[str, Any]] = ()
        self._since: dict[tuple[str, str], int] = {}
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        self._done_s: float | None = None
        self._at_ms = 0

    def look(self) -> Mapping[str, Any]:
        """What was found last, the worst first, and when; a new look begins where that is not fresh any more."""
        is_fresh = self._done_s is not None and time.monotonic() - self._done_s < FRESH_S
        if not is_fresh and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._examine())
        return {
            "at_ms": self._at_ms,
            "is_looking": self._task is not None and not self._task.done(),
            "trouble": self._trouble,
            "findings": [
                {**one, "since_ms": self._since[one["name"], one["state"]]}
                for one in sorted(self._findings, key=lambda one: WORST_FIRST.get(one["state"], 0))
            ],
        }

    async def _examine(self) -> None:
        try:
            found = await self._commands.tell("doctor", within_s=WITHIN_S)
        except EdgeError as err:
            self._trouble = str(err)
        else:
            self._trouble, self._findings, self._at_ms = "", found, time.time_ns() // 10**6
            now = {(one["name"], one["state"]) for one in found}
            self._since = {key: self._since.get(key, self._at_ms) for key in now}
        finally:  # else what nobody foresaw is tried again at each question
            self._done_s = time.monotonic()
