"""What the box does with what it hears: wake word or key, window, command, short moment to cancel, act.

A state machine without I/O and clock: what was heard and `now_ns` go in, things to do come out. Open listening is not
safe (10 to 60 false accepts an hour with the models that can be had), so commands are only taken inside a window that
somebody opened::

    idle --wake, key--> window --command--> pending --cancel_s over--> done
                          |  \\--code, words--> shown --choice, next, show_s over--> done
                          |--not understood--> window again, REDO times
                          \\--window_s over--> idle

Voice may only ask for what the degree of automation allows; a verdict that it does not allow is kept as a label.
`stop line` is carried out at once and asks the PLC for a controlled hold. It is never the emergency stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import SECOND
from edge_runtime.core.messages import Command, OperatorRequest

REDO = 2  # windows opened again by themselves after something that was not understood
REDO_WITHIN_NS = 20 * SECOND  # a request this soon after one that came to nothing is another try at it
SPEECH_NS = 4 * SECOND  # a window stays open for speech that began in it, this long at most
AT_ONCE = frozenset({Command.STOP_LINE, Command.CANCEL, Command.NEXT})  # nothing to take back, or nothing to wait for
VERDICTS = frozenset({Command.ACCEPT, Command.REJECT})
FAILED = frozenset({"empty", "unheard", "cancelled"})


class Mode(StrEnum):
    IDLE = "idle"
    WINDOW = "listening"
    PENDING = "pending"  # a command, before it is carried out
    SHOWN = "shown"  # search results on the screen


class Sound(StrEnum):
    """What the box answers with. Short, because the operator looks at the part."""

    OPEN = "open"
    TAKEN = "taken"
    DONE = "done"
    SORRY = "sorry"


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance, recognised. `results` are the codes that a search found for the transcript."""

    start_ns: int
    end_ns: int
    transcript: str  # empty: speech that is neither command nor code
    confidence: float
    command: Command | None = None
    results: tuple[str, ...] = ()
    origin: str = ""
    audio: str = ""
    near: str = ""  # "no A742; one symbol off: A741": what to say of a code that is not there
    flaw: str = ""  # why its sound was not listened to: "invalid_sound: clipped 40 % of samples"


@dataclass(frozen=True, slots=True)
class Beep:
    sound: Sound


@dataclass(frozen=True, slots=True)
class Act:
    """Carry out a command. as_label: only note it about the part, the model decides here."""

    command: Command
    as_label: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """A request came to its end: for the journal."""

    request: OperatorRequest


ToDo = Beep | Act | Noted


@dataclass(frozen=True, slots=True)
class DialogTimes:
    window_ns: int = 3 * SECOND
    cancel_ns: int = SECOND * 3 // 2
    show_ns: int = 30 * SECOND


class Dialog:
    """See the module. Every method answers what to do, in order."""

    def __init__(self, automation: Automation, times: DialogTimes | None = None) -> None:
        self.mode = Mode.IDLE
        self.says = ""  # the line on the screen
        self.shown: tuple[str, ...] = ()  # codes on the screen
        self.automation = automation
        self._times = times or DialogTimes()
        self._request: OperatorRequest | None = None
        self._until_ns = 0
        self._latest_ns = 0  # a window is not kept open past this
        self._tries = 0
        self._redo = 0
        self._failed_ns: int | None = None

    # -- what happens -------------------------------------------------------------------------------------------------

    def open(self, source: str, now_ns: int) -> list[ToDo]:
        """The wake word, or the key. Inside a window it changes nothing; results on the screen give way."""
        if self.mode in (Mode.WINDOW, Mode.PENDING):
            return []
        done = self._close_shown(None, "asked again")
        self._tries = 0
        self._begin(source, now_ns)
        return [*done, *self._open_window(now_ns)]

    def speech(self, now_ns: int) -> None:
        """Somebody is speaking: a window does not end in the middle of a word."""
        if self.mode is Mode.WINDOW:
            self._until_ns = min(self._latest_ns, max(self._until_ns, now_ns + SECOND))

    def heard(self, heard: Heard, now_ns: int) -> list[ToDo]:
        """One utterance. Ignored outside a window, except what belongs to a pending command or shown results."""
        if self.mode is Mode.PENDING:
            return self._cancel() if heard.command is Command.CANCEL else []
        if self.mode is not Mode.WINDOW or self._request is None:
            return []
        self._request = replace(
            self._request,
            start_ns=heard.start_ns,
            end_ns=heard.end_ns,
            transcript=heard.transcript,
            confidence=heard.confidence,
            command=heard.command,
            results=heard.results,
            origin=heard.origin,
            audio=heard.audio,
        )
        if heard.command is not None:
            return self._take(heard.command, now_ns)
        if heard.results:
            return self._show(heard.results, now_ns)
        return self._not_understood(heard, now_ns)

    def typed(self, text: str, results: Sequence[str], now_ns: int, near: str = "") -> list[ToDo]:
        """A search from the keyboard of the page. near: as of `Heard`."""
        done = self._carry_out() if self.mode is Mode.PENDING else self.cancel(now_ns)
        self._begin("typed", now_ns)
        assert self._request is not None
        self._request = replace(self._request, transcript=text, confidence=1.0, results=tuple(results))
        if results:
            return [*done, *self._show(tuple(results), now_ns)]
        self.says = near or f"nothing found for '{text}'"
        return [*done, *self._end("empty", near)]

    def choose(self, code: str) -> list[ToDo]:
        """One of the results was taken. A code that is not on the screen is ignored."""
        return self._close_shown(code, "") if code in self.shown else []

    def cancel(self, now_ns: int) -> list[ToDo]:
        """The cancel key: as the word."""
        match self.mode:
            case Mode.PENDING:
                return self._cancel()
            case Mode.SHOWN:
                return self._close_shown(None, "dismissed")
            case Mode.WINDOW:
                self.says = ""
                return self._end("cancelled", "cancelled before anything was said")
        return []

    def tick(self, now_ns: int) -> list[ToDo]:
        """Time passes."""
        if self.mode is Mode.IDLE or now_ns < self._until_ns:
            return []
        match self.mode:
            case Mode.PENDING:
                return self._carry_out()
            case Mode.SHOWN:
                return self._close_shown(None, "nobody chose")
        self.says = ""
        return self._end("silent" if self._request and self._request.start_ns is None else "unheard", "")

    # -- what follows -------------------------------------------------------------------------------------------------

    def _begin(self, source: str, now_ns: int) -> None:
        is_redo = self._failed_ns is not None and now_ns - self._failed_ns < REDO_WITHIN_NS
        self._redo = self._redo + 1 if is_redo else 0
        self._request = OperatorRequest(
            source, now_ns, None, None, "", 0.0, None, (), self._redo, None, "silent", "", ""
        )

    def _open_window(self, now_ns: int) -> list[ToDo]:
        self.mode, self.shown = Mode.WINDOW, ()
        self.says = "listening"
        self._until_ns = now_ns + self._times.window_ns
        self._latest_ns = self._until_ns + SPEECH_NS
        return [Beep(Sound.OPEN)]

    def _take(self, command: Command, now_ns: int) -> list[ToDo]:
        if command is Command.CANCEL:
            self.says = "cancelled"
            return self._end("cancelled", "")
        if command in AT_ONCE:
            return self._carry_out()
        self.mode, self.says = Mode.PENDING, f"{command.value} - say cancel to take it back"
        self._until_ns = now_ns + self._times.cancel_ns
        return [Beep(Sound.TAKEN)]

    def _carry_out(self) -> list[ToDo]:
        assert self._request is not None
        command = self._request.command
        assert command is not None
        as_label = command in VERDICTS and self.automation is Automation.FULL
        self.says = f"{command.value}: noted, the model decides here" if as_label else command.value
        reason = "decision.automation is full: kept as a label" if as_label else ""
        return [Act(command, as_label), Beep(Sound.DONE), *self._end("noted" if as_label else "done", reason)]

    def _cancel(self) -> list[ToDo]:
        self.says = "cancelled"
        return [Beep(Sound.DONE), *self._end("cancelled", "taken back in time")]

    def _show(self, results: tuple[str, ...], now_ns: int) -> list[ToDo]:
        self.mode, self.shown = Mode.SHOWN, results
        self.says = self._request.transcript if self._request else ""
        self._until_ns = now_ns + self._times.show_ns
        return [Beep(Sound.TAKEN)]

    def _close_shown(self, choice: str | None, reason: str) -> list[ToDo]:
        if self.mode is not Mode.SHOWN or self._request is None:
            return []
        self._request = replace(self._request, choice=choice)
        self.says, self.shown = "", ()
        return self._end("answered", reason)

    def _not_understood(self, heard: Heard, now_ns: int) -> list[ToDo]:
        nothing = heard.near or f"nothing found for '{heard.transcript}'"
        what = nothing if heard.transcript else f"not understood, {heard.flaw}" if heard.flaw else "not understood"
        done = self._end("empty" if heard.transcript else "unheard", heard.flaw or heard.near, failed_ns=now_ns)
        self._tries += 1
        if self._tries <= REDO:
            source = done[-1].request.source if isinstance(done[-1], Noted) else "wake"
            self._begin(source, now_ns)
            self._open_window(now_ns)
        self.says = f"{what}, say it again" if self.mode is Mode.WINDOW else what
        return [Beep(Sound.SORRY), *done]

    def _end(self, outcome: str, reason: str, failed_ns: int | None = None) -> list[ToDo]:
        assert self._request is not None
        request = replace(self._request, outcome=outcome, reason=reason)
        if outcome in FAILED:
            self._failed_ns = failed_ns if failed_ns is not None else request.end_ns or request.opened_ns
        elif outcome != "silent":
            self._failed_ns = None
        self.mode, self._request = Mode.IDLE, None
        return [Noted(request)]
