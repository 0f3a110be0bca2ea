"""The life of a daemon of the box: signals, READY, a watchdog fed by progress, and an orderly stop.

systemd hears that a daemon lives only while every part of it makes progress. When one does not, it hears which, until
its patience ends and it starts the daemon anew.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from edge_runtime.core.log import set_up_logging
from edge_runtime.flow.components import Health
from edge_runtime.process.sd_notify import Notifier

log = logging.getLogger(__name__)

TICK_S = 0.05  # how soon a bound is noticed
EVERY_S = 0.5


def begin_daemon(log_level: str) -> None:
    """First of all: a crash in native code, or systemd's SIGABRT to a hung box, says where each thread stands."""
    faulthandler.enable()
    set_up_logging(log_level)


def settle_memory() -> None:
    """Once all is started: what is alive now stays, and full collections no longer walk the libraries."""
    gc.collect()
    gc.freeze()


def hung(healths: Mapping[str, Health], now_ns: int, stale_ns: int) -> list[str]:
    """Names of those whose loop has not turned for so long; whoever tells no progress is not judged by it."""
    turned = {name: health.progress_ns for name, health in healths.items()}
    return [name for name, at_ns in turned.items() if at_ns is not None and now_ns - at_ns > stale_ns]


class DaemonLoop:
    """Within `with`, SIGTERM and SIGINT ask it to stop; outside the main thread (tests) no signal is caught.

    line: how all is, for `systemctl status`. stuck: what hangs, by name. every_s: how often both are asked, at most;
    the watchdog is fed four times within its patience.
    """

    def __init__(
        self,
        line: Callable[[], str],
        stuck: Callable[[], Sequence[str]],
        *,
        every_s: float = EVERY_S,
        notifier: Notifier | None = None,
    ) -> None:
        self._line = line
        self._stuck = stuck
        self._notifier = notifier or Notifier()
        self._every_s = min(every_s, (self._notifier.watchdog_s or 4 * every_s) / 4)
        self._asked_to_stop = threading.Event()
        self._signals: dict[int, Any] = {}
        self._withheld: Sequence[str] = ()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._signals[number] = signal.signal(number, lambda *_: self.stop())
        return self

    def __exit__(self, *_: object) -> None:
        while self._signals:
            signal.signal(*self._signals.popitem())

    @property
    def is_stopping(self) -> bool:
        return self._asked_to_stop.is_set()

    def stop(self) -> None:
        """From any thread."""
        self._asked_to_stop.set()

    def ready(self) -> None:
        """Everything is started."""
        self._notifier.ready(self._line())

    def turn(self, look_after: Callable[[], None] | None = None, is_over: Callable[[], bool] | None = None) -> None:
        """Until somebody asks to stop, or it is over. look_after: what is done as often as the watchdog is fed."""
        fed = -self._every_s
        try:
            while not self._asked_to_stop.wait(TICK_S if is_over else self._every_s):
                now = time.monotonic()
                if not is_over or now - fed >= self._every_s:
                    fed = now
                    self._feed()
                    if look_after:
                        look_after()
                if is_over and is_over():
                    return
        finally:
            self._notifier.stopping()

    def _feed(self) -> None:
        stuck = self._stuck()
        if not stuck:
            self._notifier.alive(self._line())
        else:
            self._notifier.status(f"hung: {', '.join(stuck)}")
            if stuck != self._withheld:
                log.critical("watchdog.withheld %s", " ".join(stuck))
        self._withheld = stuck
