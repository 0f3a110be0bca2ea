"""One thread that judges and obeys commands, one after the other, however long one takes.

Apart from the links, because a rollback loads and tests a model for up to a minute and a link that does not turn for
so long is dropped. The book of counters and audit is used by this thread alone. Where it cannot be opened every command
is refused, and the next one tries again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edge_runtime.core.errors import StorageError
from edge_runtime.flow.components import Health, State
from edge_runtime.sync.commands.judge import Commands

log = logging.getLogger(__name__)

MOST_WAITING = 16  # commands; a person gives one a minute
LOOK_S = 0.5
STOP_WAIT_S = 1.0  # the rollback under way goes on in `run`, whether somebody waits for it or not


class _Message(NamedTuple):
    data: bytes
    is_retained: bool


class _Unsigned(NamedTuple):
    do: str
    args: Mapping[str, str]
    key: str


Answer = Mapping[str, Any]


class CommandDesk:
    """A component.

    open_commands: makes the judge with its book; raises StorageError. answered: told after each message, on the desk's
    thread, what to reply (None: nothing) and the next one-time word.
    """

    name = "commands"

    def __init__(
        self,
        open_commands: Callable[[], Commands],
        answered: Callable[[Answer | None, str], None] = lambda answer, nonce: None,
    ) -> None:
        self._open_commands, self._answered = open_commands, answered
        self._commands: Commands | None = None
        self._waiting: queue.Queue[_Message | _Unsigned | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._must_stop = threading.Event()
        self._trouble = ""
        self.turned_away = 0  # came faster than they could be obeyed, or while the book was shut

    def start(self) -> None:
        self._must_stop.clear()
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Safe to call twice. What still waits is not obeyed."""
        thread, self._thread = self._thread, None
        if thread:
            self._must_stop.set()
            self._put(None)
            thread.join(STOP_WAIT_S)

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        if not self._thread.is_alive():
            return Health(State.FAILED, "the thread of commands ended; restart the uplink")
        return Health(State.DEGRADED if self._trouble else State.OK, self._trouble or f"{self.report()['done']} done")

    def report(self) -> Mapping[str, Any]:
        commands = self._commands
        counts = commands.counts if commands else {}
        told = {name: counts.get(name, 0) for name in ("done", "failed", "refused")}
        return {**told, "turned_away": self.turned_away, "trouble": self._trouble}

    def receive(self, data: bytes, *, is_retained: bool = False) -> None:
        """A message on the box's command topic. From any thread, returns at once."""
        self._put(_Message(data, is_retained))

    def receive_unsigned(self, do: str, args: Mapping[str, str], key: str) -> None:
        """The same for what came through Sparkplug."""
        self._put(_Unsigned(do, args, key))

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _put(self, item: _Message | _Unsigned | None) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self.turned_away += 1
            log.warning("command.turned_away %d wait already", MOST_WAITING)

    def _run(self) -> None:
        self._open()
        while not self._must_stop.is_set():
            try:
                item = self._waiting.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if item is not None and not self._must_stop.is_set():
                self._take(item)
        if self._commands:
            self._commands.book.close()
            self._commands = None

    def _open(self) -> Commands | None:
        if self._commands is None:
            try:
                self._commands, self._trouble = self._open_commands(), ""
            except StorageError as err:
                self._trouble = str(err)
                log.error("command.book %s", err)
            except Exception as err:  # the thread must live: the next command tries again
                self._trouble = f"unexpected {type(err).__name__}: {err}"
                log.exception("command.book")
            else:
                self._answered(None, self._commands.nonce)
        return self._commands

    def _take(self, item: _Message | _Unsigned) -> None:
        commands = self._open()
        if commands is None:
            self.turned_away += 1
            return
        try:
            if isinstance(item, _Message):
                answer = commands.receive(item.data, is_retained=item.is_retained)
                self._answered(answer, commands.nonce)
            else:
                commands.receive_unsigned(*item)
        except Exception:
            log.exception("command.fault")
