"""What operators' commands do, whoever brings them: voice, key, page, command line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from edge_runtime.core.clock import Clock
from edge_runtime.core.messages import Command, Event, HumanLabel, Verdict
from edge_runtime.decision.dialog import Act
from edge_runtime.lines.vision_line import VisionLine

log = logging.getLogger(__name__)

_VERDICTS = {Command.ACCEPT: Verdict.ACCEPT, Command.REJECT: Verdict.REJECT}


class OperatorDesk:
    """Carries commands out. Any thread.

    hold: asks the far side for a controlled hold of the feed, or lets it go on. A pause ends with `next`; a stopped
    line ends only with `resume`, which somebody has to call at the box.
    """

    def __init__(self, line: VisionLine, hold: Callable[[bool], None], clock: Clock) -> None:
        self._line = line
        self._hold = hold
        self._clock = clock
        self._lock = threading.Lock()
        self._held_by: Command | None = None

    @property
    def held_by(self) -> str:
        """`pause`, `stop line`, or empty while the line may run."""
        return self._held_by.value if self._held_by else ""

    def carry_out(self, act: Act, by: str = "voice") -> None:
        command = act.command
        verdict = _VERDICTS.get(command)
        if verdict is not None:
            if act.as_label or self._line.decide_by_person(verdict, by) is None:
                self._label(command, by)
        elif command is Command.RESCAN:
            self._label(command, by)
        elif command in (Command.PAUSE, Command.STOP_LINE):
            self._set_hold(command, by)
        elif command is Command.NEXT:
            self.resume(by, only=Command.PAUSE)

    def resume(self, by: str, only: Command | None = None) -> bool:
        """Let the line go on. False when nothing held it, or something else than `only`."""
        with self._lock:  # around the far side's level too: what is told last is what stands here
            held = self._held_by
            if held is None or only not in (None, held):
                return False
            self._hold(False)
            self._held_by = None
        self._tell("operator.resumed", by, after=held.value)
        return True

    def _set_hold(self, command: Command, by: str) -> None:
        with self._lock:
            if self._held_by is not Command.STOP_LINE:  # a pause does not loosen a stop
                self._held_by = command
            self._hold(True)
        self._tell("operator.hold", by, why=command.value)

    def _label(self, command: Command, by: str) -> None:
        """About the part decided last: the one the operator has just seen pass."""
        recent = self._line.recent
        if not recent:
            self._tell("operator.no_part", by, said=command.value)
            return
        self._line.label(HumanLabel(recent[-1].key, command.value, self._clock(), by))

    def _tell(self, kind: str, by: str, **detail: Any) -> None:
        log.info("%s by=%s %s", kind, by, detail)
        self._line.on_event(Event(kind, self._clock(), {"by": by, **detail}))
