"""What operators' commands do, whoever brings them: voice, key, page, command line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from edge_runtime.core.clock import Clock
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import OPERATOR, Cause, Command, Decision, Event, HumanLabel, Label, Verdict, Where
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
            if act.as_label or self._line.people.decide(verdict, Where.VOICE) is None:
                self._label(verdict, by)
        elif command is Command.RESCAN:
            self._rescan(by)
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
        self._tell(EventKind.OPERATOR_RESUMED, by, after=held.value)
        return True

    def _set_hold(self, command: Command, by: str) -> None:
        with self._lock:
            if self._held_by is not Command.STOP_LINE:  # a pause does not loosen a stop
                self._held_by = command
            self._hold(True)
        self._tell(EventKind.OPERATOR_HOLD, by, why=command.value)

    def _label(self, verdict: Verdict, by: str) -> None:
        """About the part decided last: the one the operator has just seen pass, with what was decided about it."""
        last = self._last(verdict.value, by)
        if last is None:
            return
        saw_model, saw = (last.model, last.verdict) if last.cause is Cause.MODEL else ("", None)
        label = Label(verdict.value)
        self._line.label(HumanLabel(last.key, label, self._clock(), OPERATOR, Where.VOICE, "", "", saw_model, saw))

    def _rescan(self, by: str) -> None:
        """The last part should pass once more, which says nothing about what it is."""
        last = self._last(Command.RESCAN.value, by)
        if last is not None:
            self._tell(EventKind.OPERATOR_RESCAN, by, part=f"{last.key.boot_id:04x}-{last.key.part_id}")

    def _last(self, said: str, by: str) -> Decision | None:
        recent = self._line.recent
        if not recent:
            self._tell(EventKind.OPERATOR_NO_PART, by, said=said)
            return None
        return recent[-1]

    def _tell(self, kind: EventKind, by: str, **detail: Any) -> None:
        log.info("%s by=%s %s", kind, by, detail)
        self._line.on_event(Event(kind, self._clock(), {"by": by, **detail}))
